package routing

import (
	"context"
	"encoding/json"

	"github.com/tidwall/gjson"

	"github.com/matrix-org/dendrite/clientapi/dehydration"
	"github.com/matrix-org/dendrite/clientapi/keys"
	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
)

// putDehydrated is PUT /_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device.
func (e *endpoints) putDehydrated(ctx context.Context, r *httputil.Request) (any, error) {
	var body struct {
		DeviceID    *id.DeviceID    `json:"device_id"`
		DeviceData  json.RawMessage `json:"device_data"`
		DisplayName string          `json:"initial_device_display_name"`
		keys.Upload
	}
	raw, err := r.Object()
	if err != nil {
		return nil, err
	}
	if err := httputil.Unmarshal(raw, &body); err != nil {
		return nil, err
	}
	data, err := object("device_data", body.DeviceData)
	switch {
	case err != nil:
		return nil, err
	case data == nil:
		return nil, lacks(raw, "device_data", "an object")
	case gjson.GetBytes(data, "algorithm").Type != gjson.String:
		return nil, mxerr.BadJSON("device_data must have an algorithm, which is a string")
	case body.DeviceID == nil:
		return nil, lacks(raw, "device_id", "a string")
	case isNull(body.DeviceKeys):
		return nil, lacks(raw, "device_keys", "an object")
	}
	err = e.Dehydration.Put(ctx, r.Caller.UserID, dehydration.Device{ID: *body.DeviceID, Data: data,
		DisplayName: body.DisplayName, Keys: body.Upload})
	return httputil.Object{"device_id": *body.DeviceID}, err
}

// dehydrated is GET …/dehydrated_device.
func (e *endpoints) dehydrated(ctx context.Context, r *httputil.Request) (any, error) {
	d, err := e.Dehydration.Get(ctx, r.Caller.UserID)
	if err != nil {
		return nil, err
	}
	return httputil.Object{"device_id": d.DeviceID, "device_data": d.DeviceData}, nil
}

// deleteDehydrated is DELETE …/dehydrated_device.
func (e *endpoints) deleteDehydrated(ctx context.Context, r *httputil.Request) (any, error) {
	device, err := e.Dehydration.Delete(ctx, r.Caller.UserID)
	return httputil.Object{"device_id": device}, err
}
