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
	"github.com/matrix-org/dendrite/common/rawjson"
)

// queryKeys is POST /keys/query.
func (e *endpoints) queryKeys(ctx context.Context, r *httputil.Request) (any, error) {
	raw, err := r.Object()
	if err != nil {
		return nil, err
	}
	var asked map[id.UserID][]id.DeviceID
	var wait *int64
	in := rawjson.NewReader(raw)
	_, err = in.Object(func(name []byte) error {
		switch string(name) {
		case "timeout":
			return httputil.Unmarshal(in.Value(), &wait)
		case "device_keys":
			asked, err = readAsked(in)
			return err
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if asked == nil {
		return nil, mxerr.MissingParam("device_keys is missing")
	}
	timeout, err := keys.Timeout(wait)
	if err != nil {
		return nil, err
	}
	found, failures, err := e.Keys.Query(ctx, r.Caller.UserID, timeout, asked)
	if err != nil {
		return nil, err
	}
	return httputil.Object{"device_keys": joinDevices(found.Devices), "master_keys": join(found.Master),
		"self_signing_keys": join(found.SelfSigning),
		"user_signing_keys": join(found.UserSigning), "failures": failures}, nil
}

// readAsked reads for which devices of which users a client asks; nil for null.
func readAsked(in *rawjson.Reader) (asked map[id.UserID][]id.DeviceID, err error) {
	asked = make(map[id.UserID][]id.DeviceID)
	isObject, err := in.Object(func(name []byte) error {
		user, list := id.UserID(name), in.Value()
		var devices []id.DeviceID
		if string(list) != "[]" { // as all clients send it
			if list[0] != '[' {
				return mxerr.BadJSON("device_keys: the devices of %.80q must be a list", user)
			}
			if err := httputil.Unmarshal(list, &devices); err != nil {
				return err
			}
		}
		asked[user] = devices
		return nil
	})
	if err == nil && !isObject {
		if isNull(in.Value()) {
			return nil, nil
		}
		err = mxerr.BadJSON("device_keys must be an object")
	}
	return asked, err
}

// join makes an object of JSON that is copied as it is.
func join[K ~string](members map[K]json.RawMessage) json.RawMessage {
	return appendJoined(make([]byte, 0, sizeOf(members)), members)
}

// sizeOf is about how many bytes the object has.
func sizeOf[K ~string](members map[K]json.RawMessage) int {
	size := 2
	for name, value := range members {
		size += len(name) + len(value) + 8
	}
	return size
}

func appendJoined[K ~string](out []byte, members map[K]json.RawMessage) []byte {
	out = append(out, '{')
	if len(members) == 1 { // as most users have one device
		for name, value := range members {
			out = append(append(pdu.AppendString(out, name), ':'), value...)
		}
		return append(out, '}')
	}
	for i, name := range slices.Sorted(maps.Keys(members)) {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(append(pdu.AppendString(out, name), ':'), members[name]...)
	}
	return append(out, '}')
}

// joinDevices is join of join, and makes one text of all.
func joinDevices(users map[id.UserID]map[id.DeviceID]json.RawMessage) json.RawMessage {
	size := 2
	for user, devices := range users {
		size += len(user) + sizeOf(devices) + 8
	}
	out := append(make([]byte, 0, size), '{')
	for i, user := range slices.Sorted(maps.Keys(users)) {
		if i > 0 {
			out = append(out, ',')
		}
		out = appendJoined(append(pdu.AppendString(out, user), ':'), users[user])
	}
	return append(out, '}')
}
