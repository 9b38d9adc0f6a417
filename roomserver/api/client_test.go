package api

import (
	"encoding/json"
	"testing"

	"github.com/tidwall/gjson"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/pdu"
)

func TestUnsignedSaysWhatTheViewerMayKnow(t *testing.T) {
	event := func(raw string) *pdu.Event {
		e, err := pdu.ParseTrusted("11", "$e", []byte(raw))
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	e := Event{
		PDU: event(`{"auth_events":[],"content":{"name":"new"},"depth":5,"hashes":{"sha256":"x"},"origin_server_ts":1,"prev_events":[],` +
			`"room_id":"!r:s","sender":"@a:s","state_key":"","type":"m.room.name","unsigned":{"transaction_id":"forged"}}`),
		RedactedBecause: event(`{"auth_events":[],"content":{"redacts":"$e"},"depth":6,"hashes":{"sha256":"x"},"origin_server_ts":2,"prev_events":[],` +
			`"room_id":"!r:s","sender":"@b:s","type":"m.room.redaction"}`),
		ReplacesState: "$old", PrevContent: json.RawMessage(`{"name":"old"}`), DeviceID: "D", TransactionID: `t"1`, Membership: "join",
	}
	for viewer, txn := range map[[2]string]string{{"@a:s", "D"}: `t"1`, {"@a:s", "E"}: "", {"@b:s", "D"}: "", {}: ""} {
		got := e.AppendClient(nil, Viewer{UserID: id.UserID(viewer[0]), DeviceID: id.DeviceID(viewer[1])}, pdu.ClientOptions{WithRoomID: true})
		if !json.Valid(got) {
			t.Fatalf("no JSON: %s", got)
		}
		unsigned := gjson.GetBytes(got, "unsigned")
		if unsigned.Get("transaction_id").Str != txn {
			t.Errorf("%+v gets the transaction id %s", viewer, unsigned.Get("transaction_id"))
		}
		if unsigned.Get("age").Int() <= 0 || unsigned.Get("prev_content.name").Str != "old" || unsigned.Get("replaces_state").Str != "$old" ||
			unsigned.Get("membership").Str != "join" || unsigned.Get("redacted_because.type").Str != "m.room.redaction" {
			t.Errorf("unsigned is %s", unsigned.Raw)
		}
	}
	plain := Event{PDU: e.PDU}
	if got := gjson.GetBytes(plain.AppendClient(nil, Viewer{}, pdu.ClientOptions{}), "unsigned"); len(got.Map()) != 1 {
		t.Errorf("unsigned of an event of which nothing is known is %s", got.Raw)
	}
}
