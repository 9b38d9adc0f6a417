package state

import (
	"testing"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/roomserver/stateres"
	"github.com/matrix-org/dendrite/roomserver/storage"
)

func event(t *testing.T, outcome storage.Outcome, redactedBy id.EventID) *storage.Event {
	t.Helper()
	e, err := pdu.ParseTrusted("11", "$e", []byte(`{"content":{},"room_id":"!r:here","sender":"@a:here","type":"m.room.message"}`))
	if err != nil {
		t.Fatal(err)
	}
	return &storage.Event{NID: 1, PDU: e, Outcome: outcome, RedactedBy: redactedBy}
}

func TestALateReadDoesNotReplaceWhatWasCommittedMeanwhile(t *testing.T) {
	for name, pair := range map[string][2]*storage.Event{
		"redaction":                {event(t, storage.Accepted, ""), event(t, storage.Accepted, "$redaction")},
		"outlier that got a place": {event(t, storage.Outlier, ""), event(t, storage.Accepted, "")},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := NewReader(nil, true)
			if err != nil {
				t.Fatal(err)
			}
			before, after := pair[0], pair[1]
			r.remember([]*storage.Event{before}) // somebody reads,
			r.Stored(after)                      // a commit changes it,
			r.remember([]*storage.Event{before}) // and somebody else comes back from a read that began earlier
			found, err := r.Fresh(t.Context(), []stateres.EventNID{1})
			if err != nil || found[1] != after {
				t.Fatalf("got %+v, %v", found[1], err)
			}
		})
	}
}
