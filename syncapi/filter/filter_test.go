package filter

import (
	"strings"
	"testing"

	"github.com/matrix-org/dendrite/common/mxerr"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
)

func TestParseReadsEveryPart(t *testing.T) {
	f, err := Parse([]byte(`{"event_fields":["content.body"],"event_format":"federation","presence":{"types":[]},
		"room":{"rooms":["!a:b"],"not_rooms":["!c:d"],"include_leave":true,
		"state":{"lazy_load_members":true,"types":["m.room.*"]},"timeline":{"limit":5000,"unread_thread_notifications":true,"senders":["@a:b"]}}}`))
	if err != nil {
		t.Fatal(err)
	}
	if !f.LazyLoadMembers() || f.IncludeRedundantMembers() || !f.UnreadThreadNotifications() || !f.Room.IncludeLeave {
		t.Errorf("flags are lost: %+v", f.Room)
	}
	if f.TimelineLimit() != MaxTimelineLimit || Default().TimelineLimit() != DefaultTimeline {
		t.Errorf("limit is %d, default %d", f.TimelineLimit(), Default().TimelineLimit())
	}
	if !f.WantsRoom("!a:b") || f.WantsRoom("!c:d") || f.WantsRoom("!e:f") || !Default().WantsRoom("!e:f") {
		t.Error("rooms and not_rooms are not applied")
	}
	if f.Presence.MatchesType("m.presence") {
		t.Error("an empty list of types selects nothing")
	}
	if !f.Room.State.MatchesType("m.room.name") || f.Room.State.MatchesType("m.rooms") || !f.Room.Timeline.MatchesType("x") {
		t.Error("types with a star are not applied")
	}
}

func TestParseRefuses(t *testing.T) {
	for raw, code := range map[string]string{
		`{`:                                   "M_NOT_JSON",
		``:                                    "M_NOT_JSON",
		`[]`:                                  "M_BAD_JSON",
		`null`:                                "M_BAD_JSON",
		`{"room":{"rooms":"a"}}`:              "M_BAD_JSON",
		`{"room":{"rooms":["a"]}}`:            "M_BAD_JSON",
		`{"room":{"timeline":{"limit":-1}}}`:  "M_BAD_JSON",
		`{"room":{"timeline":{"limit":"1"}}}`: "M_BAD_JSON",
		`{"presence":{"senders":["nobody"]}}`: "M_BAD_JSON",
		`{"event_format":"xml"}`:              "M_BAD_JSON",
		`{"x":"` + strings.Repeat("a", roomserver.MaxFilterBytes) + `"}`: "M_TOO_LARGE",
	} {
		if _, err := Parse([]byte(raw)); !mxerr.Is(err, code) {
			t.Errorf("%.60s: %v, want %s", raw, err, code)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"room":{"timeline":{"limit":1}}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if parsed, err := Parse(raw); err == nil && parsed.TimelineLimit() < 0 {
			t.Error("a filter with a negative limit was taken")
		}
	})
}
