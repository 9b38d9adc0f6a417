package answer

import (
	"testing"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/syncapi/storage"
	"github.com/matrix-org/dendrite/syncapi/stream"
)

// The client has the state in which the user left only where an answer can have told it so: with an event that says it,
// and nothing else in place of it.
func TestWhichStateAClientHasOfARoomThatWasLeft(t *testing.T) {
	const name, since = id.RoomID("!room:here"), 9
	at := func(pos int64, membership string) storage.Membership {
		m := storage.Membership{RoomID: name, Pos: pos, Membership: membership, EventID: "$event"}
		m.Root[0] = byte(pos)
		return m
	}
	reset := at(2, leave)
	reset.EventID = ""
	for what, test := range map[string]struct {
		history []storage.Membership
		want    byte // of the root; 0 for none
	}{
		"left":                   {[]storage.Membership{at(1, join), at(2, leave)}, 2},
		"banned":                 {[]storage.Membership{at(1, join), at(2, leave), at(3, "ban")}, 2},
		"invited later":          {[]storage.Membership{at(1, join), at(2, leave), at(10, invite)}, 2},
		"invited before it":      {[]storage.Membership{at(1, invite), at(2, join), at(3, leave)}, 3},
		"joined later":           {[]storage.Membership{at(1, join), at(2, leave), at(10, join), at(11, leave)}, 2},
		"invited":                {[]storage.Membership{at(1, join), at(2, leave), at(3, invite)}, 0},
		"rejected":               {[]storage.Membership{at(1, join), at(2, leave), at(3, invite), at(4, leave)}, 0},
		"knocked":                {[]storage.Membership{at(1, join), at(2, leave), at(3, knock)}, 0},
		"left without an event":  {[]storage.Membership{at(1, join), reset}, 0},
		"banned without a leave": {[]storage.Membership{at(1, join), reset, at(3, "ban")}, 0},
		"invited, joined later":  {[]storage.Membership{at(1, join), at(2, leave), at(3, invite), at(10, join)}, 0},
	} {
		a := &answering{since: Token{Pos: since},
			window: &stream.Window{View: &stream.View{Rooms: map[id.RoomID][]storage.Membership{name: test.history}}}}
		var got byte
		if root := a.leftWith(&room{id: name}); root != nil {
			got = (*root)[0]
		}
		if got != test.want {
			t.Errorf("%s: the state of position %d, want %d", what, got, test.want)
		}
	}
}
