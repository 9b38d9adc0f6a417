package input

import (
	"fmt"
	"testing"

	"github.com/matrix-org/dendrite/common/id"
)

func TestARoomIsReadAgainForThoseOnlyWhoNeedMoreThanTheirClassSays(t *testing.T) {
	r := newRuleCache(nil)
	r.loaded, r.own, r.old = true, set("@own:x"), set("@changed:x")
	r.ignores, r.ignoredBy = map[id.UserID][]id.UserID{"@ignoring:x": {"@a:x"}}, map[id.UserID]map[id.UserID]struct{}{"@a:x": set("@ignoring:x")}
	for user, want := range map[id.UserID]bool{"@ghost:x": true, "@own:x": false, "@changed:x": false, "@ignoring:x": false, "@a:x": true} {
		r.keepRoom("!r:x", new(roomRules), 0)
		r.moved("!r:x", user)
		if got := r.rooms["!r:x"] != nil; got != want {
			t.Errorf("%s joins, and the room is remembered: %t", user, got)
		}
	}
	r.loaded = false
	r.moved("!r:x", "@ghost:x")
	if r.rooms["!r:x"] != nil {
		t.Error("a room is remembered although it is not known who needs more")
	}
	r.loaded = true
	r.keepRoom("!r:x", new(roomRules), 0)
	for i := range 10 * maxChanges {
		user := id.UserID(fmt.Sprintf("@ghost%d:x", i))
		r.keepRoom("!other:x", new(roomRules), 0)
		r.moved("!other:x", user)
		if kept := r.rooms["!other:x"] != nil; len(r.changed) > maxChanges || r.changes > maxChanges || kept != (r.changes > 0) {
			t.Fatalf("after %d users, %d are remembered, and the room: %t", i+1, len(r.changed), kept)
		}
	}
}
