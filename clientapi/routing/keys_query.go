package routing

import (
	"context"
	"encoding/json"
	"maps"
	"slices"

	"github.com/matrix-org/dendrite/clientapi/keys"
	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/pdu"
)

// queryKeys is POST /keys/query.
func (e *endpoints) queryKeys(ctx context.Context, r *httputil.Request) (any, error) {
	var body struct {
		Timeout    *int64                       `json:"timeout"`
		DeviceKeys map[id.UserID]*[]id.DeviceID `json:"device_keys"`
	}
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	if body.DeviceKeys == nil {
		return nil, mxerr.MissingParam("device_keys is missing")
	}
	timeout, err := keys.Timeout(body.Timeout)
	if err != nil {
		return nil, err
	}
	asked := make(map[id.UserID][]id.DeviceID, len(body.DeviceKeys))
	for user, devices := range body.DeviceKeys {
		if devices == nil {
			return nil, mxerr.BadJSON("device_keys: the devices of %.80q must be a list", user)
		}
		asked[user] = *devices
	}
	found, failures, err := e.Keys.Query(ctx, r.Caller.UserID, timeout, asked)
	if err != nil {
		return nil, err
	}
	return httputil.Object{"device_keys": joinDevices(found.Devices), "master_keys": join(found.Master),
		"self_signing_keys": join(found.SelfSigning),
		"user_signing_keys": join(found.UserSigning), "failures": failures}, nil
}

// join makes an object of JSON that is copied as it is.
func join[K ~string](members map[K]json.RawMessage) json.RawMessage {
	size := 2
	for name, value := range members {
		size += len(name) + len(value) + 8
	}
	out := append(make([]byte, 0, size), '{')
	for i, name := range slices.Sorted(maps.Keys(members)) {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(append(pdu.AppendString(out, name), ':'), members[name]...)
	}
	return append(out, '}')
}

func joinDevices(users map[id.UserID]map[id.DeviceID]json.RawMessage) json.RawMessage {
	joined := make(map[id.UserID]json.RawMessage, len(users))
	for user, devices := range users {
		joined[user] = join(devices)
	}
	return join(joined)
}
