package routing

import (
	"context"
	"encoding/json"

	"github.com/matrix-org/dendrite/clientapi/keys"
	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
)

// uploadKeys is POST /keys/upload.
func (e *endpoints) uploadKeys(ctx context.Context, r *httputil.Request) (any, error) {
	raw, err := r.Object()
	if err != nil {
		return nil, err
	}
	var body keys.Upload
	err = httputil.Members("the body", raw, func(name string, value json.RawMessage) error {
		switch name {
		case "device_keys":
			body.DeviceKeys = value
		case "one_time_keys":
			body.OneTimeKeys = value
		case "fallback_keys":
			body.FallbackKeys = value
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if r.Caller.DeviceID == "" {
		return nil, mxerr.MissingParam("keys are a device's, and the access token is of none: name one with device_id")
	}
	// Older clients name the device in the path.
	if named := id.DeviceID(r.Var("deviceID")); named != "" && named != r.Caller.DeviceID {
		return nil, mxerr.InvalidParam("you can upload keys of your own device %s only", r.Caller.DeviceID)
	}
	counts, err := e.Keys.Upload(ctx, r.Caller.UserID, r.Caller.DeviceID, body)
	if err != nil {
		return nil, err
	}
	return httputil.Object{"one_time_key_counts": counts}, nil
}
