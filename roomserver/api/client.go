package api

import (
	"encoding/json"
	"strconv"
	"time"

	"github.com/matrix-org/dendrite/common/pdu"
)

// Client is the event as its viewer's client gets it: with the unsigned data that this server vouches for (Client-Server API,
// § Room event format). o.Unsigned is made here, whatever it holds.
func (e *Event) Client(v Viewer, o pdu.ClientOptions) []byte {
	o.Unsigned = e.unsigned(v, o, time.Now())
	return e.PDU.Client(o)
}

func (e *Event) unsigned(v Viewer, o pdu.ClientOptions, now time.Time) json.RawMessage {
	out := append(make([]byte, 0, 64+len(e.PrevContent)), `{"age":`...)
	out = strconv.AppendInt(out, now.UnixMilli()-e.PDU.OriginServerTS(), 10)
	out = appendText(out, "membership", e.Membership)
	if len(e.PrevContent) > 0 {
		out = append(append(out, `,"prev_content":`...), e.PrevContent...)
	}
	if because := e.RedactedBecause; because != nil {
		out = append(append(out, `,"redacted_because":`...), because.Client(pdu.ClientOptions{WithRoomID: o.WithRoomID})...)
	}
	out = appendText(out, "replaces_state", string(e.ReplacesState))
	if v.UserID != "" && v.UserID == e.PDU.Sender() && v.DeviceID == e.DeviceID {
		out = appendText(out, "transaction_id", e.TransactionID)
	}
	return append(out, '}')
}

// appendText adds a member to an object that has one already; none if the value is empty.
func appendText(out []byte, name, value string) []byte {
	if value == "" {
		return out
	}
	text, err := json.Marshal(value)
	if err != nil {
		return out // a string always has a JSON form
	}
	return append(append(append(append(out, `,"`...), name...), `":`...), text...)
}
