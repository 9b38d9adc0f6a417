package routing

import (
	"context"
	"encoding/json"

	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/rawjson"
	"github.com/matrix-org/dendrite/syncapi/answer"
	"github.com/matrix-org/dendrite/syncapi/api"
	"github.com/matrix-org/dendrite/syncapi/todevice"
)

// maxToDevice limits the body of PUT /sendToDevice, in bytes.
const maxToDevice = 4 << 20

// sendToDevice is PUT /sendToDevice/{eventType}/{txnId}.
func (s *routes) sendToDevice(ctx context.Context, r *httputil.Request) (any, error) {
	messages, err := readMessages(r)
	if err != nil {
		return nil, err
	}
	eventType, txnID := r.Var("eventType"), r.Var("txnId")
	if txnID == "" {
		return nil, mxerr.InvalidParam("the transaction id is empty: " +
			"the next messages with none would be taken for these")
	}
	return nil, s.ToDevice.Send(ctx, &todevice.Request{Suspended: r.Caller.Suspended,
		SendToDeviceRequest: api.SendToDeviceRequest{RequestKey: r.TransactionKey("sendToDevice", eventType, txnID),
			Sender: r.Caller.UserID, Type: eventType, Messages: messages}})
}

// readMessages reads the body of a request that sends messages. They are parts of it.
func readMessages(r *httputil.Request) (messages map[id.UserID]map[id.DeviceID]json.RawMessage, err error) {
	body, err := r.Object()
	if err != nil {
		return nil, err
	}
	in := rawjson.NewReader(body)
	_, err = in.Object(func(name []byte) error {
		if string(name) != "messages" {
			return nil
		}
		messages, err = readUsers(in)
		return err
	})
	if err == nil && messages == nil {
		err = mxerr.MissingParam("messages is missing: an object of users, their devices, and a message for each")
	}
	return messages, err
}

// readUsers reads what there is for each user. Of two for one user or device the last counts.
func readUsers(in *rawjson.Reader) (messages map[id.UserID]map[id.DeviceID]json.RawMessage, err error) {
	messages = make(map[id.UserID]map[id.DeviceID]json.RawMessage)
	isObject, err := in.Object(func(name []byte) error {
		user, devices := id.UserID(name), make(map[id.DeviceID]json.RawMessage)
		messages[user] = devices
		isObject, err := in.Object(func(name []byte) error {
			devices[id.DeviceID(name)] = in.Value()
			return nil
		})
		if err == nil && !isObject {
			err = mxerr.BadJSON("messages for %s must be an object", user)
		}
		return err
	})
	if err == nil && !isObject {
		err = mxerr.BadJSON("messages must be an object")
	}
	return messages, err
}

// dehydratedEvents is GET /dehydrated_device/{deviceId}/events of MSC3814. Clients name the token in two ways.
func (s *routes) dehydratedEvents(ctx context.Context, r *httputil.Request) (any, error) {
	from := r.Query("next_batch")
	if from == "" {
		from = r.Query("from")
	}
	return s.dehydrated(ctx, r, from)
}

// postDehydratedEvents is POST /dehydrated_device/{deviceId}/events, as it was in earlier texts of MSC3814.
func (s *routes) postDehydratedEvents(ctx context.Context, r *httputil.Request) (any, error) {
	var body struct {
		NextBatch string `json:"next_batch"`
	}
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	return s.dehydrated(ctx, r, body.NextBatch)
}

func (s *routes) dehydrated(ctx context.Context, r *httputil.Request, from string) (any, error) {
	messages, next, err := s.ToDevice.Dehydrated(ctx, r.Caller.UserID, id.DeviceID(r.Var("deviceId")), from)
	if err != nil {
		return nil, err
	}
	return httputil.Raw{Body: answer.MessagesToDevice(messages, next)}, nil
}
