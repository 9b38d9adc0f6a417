package routing

import (
	"context"

	"github.com/matrix-org/dendrite/clientapi/keys"
	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
)

// claimKeys is POST /keys/claim.
func (e *endpoints) claimKeys(ctx context.Context, r *httputil.Request) (any, error) {
	var body struct {
		Timeout     *int64                                `json:"timeout"`
		OneTimeKeys map[id.UserID]map[id.DeviceID]*string `json:"one_time_keys"`
	}
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	if body.OneTimeKeys == nil {
		return nil, mxerr.MissingParam("one_time_keys is missing")
	}
	timeout, err := keys.Timeout(body.Timeout)
	if err != nil {
		return nil, err
	}
	wanted := make(map[id.UserID]map[id.DeviceID]string, len(body.OneTimeKeys))
	for user, devices := range body.OneTimeKeys {
		if devices == nil {
			return nil, mxerr.BadJSON("one_time_keys: the devices of %.80q must be an object", user)
		}
		wanted[user] = make(map[id.DeviceID]string, len(devices))
		for device, algorithm := range devices {
			if algorithm == nil {
				return nil, mxerr.BadJSON("one_time_keys: the algorithm for %.80q must be a string", device)
			}
			wanted[user][device] = *algorithm
		}
	}
	claimed, failures, err := e.Keys.Claim(ctx, string(newKey()), timeout, wanted)
	if err != nil {
		return nil, err
	}
	return httputil.Object{"one_time_keys": joinDevices(claimed), "failures": failures}, nil
}
