package presence

import (
	"testing"
	"time"

	"github.com/matrix-org/dendrite/common/id"
)

const alice = id.UserID("@alice:test")

// clock is a Tracker whose time the test makes pass.
func clock() (*Tracker, func(time.Duration)) {
	now := time.Unix(1000, 0)
	return NewTracker(func() time.Time { return now }), func(d time.Duration) { now = now.Add(d) }
}

func (t *Tracker) expect(test *testing.T, what string, want ...State) {
	test.Helper()
	updates := t.Changed(true)
	if len(updates) != len(want) || len(want) == 1 && updates[0].State != want[0] {
		test.Errorf("%s: %+v, want %v", what, updates, want)
	}
}

func TestAClientThatSyncsMakesItsUserOnlineUntilItIsGone(t *testing.T) {
	tracker, pass := clock()
	changes, end := tracker.Poll(alice, "A", Online)
	if !changes {
		t.Error("coming online changes nothing")
	}
	tracker.expect(t, "syncing", Online)
	if changes, again := tracker.Poll(alice, "A", Online); changes {
		t.Error("a second sync changes something")
	} else {
		again()
	}
	pass(GoneAfter * 2)
	tracker.expect(t, "a long poll")
	end()
	pass(GoneAfter - 1)
	tracker.expect(t, "between two syncs")
	pass(1)
	tracker.expect(t, "gone", Offline)
	if len(tracker.users) != 0 {
		t.Error("who is offline is kept")
	}
}

func TestWhoDoesNothingBecomesUnavailableAndOnlineByDoingSomething(t *testing.T) {
	tracker, pass := clock()
	_, end := tracker.Poll(alice, "A", Online)
	defer end()
	tracker.expect(t, "syncing", Online)
	pass(idleAfter)
	tracker.expect(t, "idle", Unavailable)
	if !tracker.Active(alice) {
		t.Error("doing something changes nothing")
	}
	tracker.expect(t, "active", Online)
	if tracker.Active("@bob:test") {
		t.Error("who has no client becomes something by sending")
	}
}

func TestTheMostPresentOfAUsersClientsCounts(t *testing.T) {
	tracker, pass := clock()
	_, end := tracker.Poll(alice, "A", Unavailable)
	tracker.expect(t, "one is idle", Unavailable)
	_, endOther := tracker.Poll(alice, "B", Online)
	tracker.expect(t, "another is not", Online)
	endOther()
	tracker.Set(alice, "B", Offline)
	tracker.expect(t, "the other is off", Unavailable)
	end()
	pass(GoneAfter)
	tracker.expect(t, "both are off", Offline)
	if _, none := tracker.Poll(alice, "A", Offline); len(tracker.users) != 0 {
		t.Error("a client that does not want to be seen is kept")
	} else {
		none()
	}
}
