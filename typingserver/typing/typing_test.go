package typing

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/typingserver/api"
)

const (
	room  = id.RoomID("!r:test")
	alice = id.UserID("@alice:test")
	bob   = id.UserID("@bob:test")
)

func world(t *testing.T, body func(*Tracker, *[]api.OutputTyping)) {
	synctest.Test(t, func(t *testing.T) {
		var told []api.OutputTyping
		tracker := New(func(_ context.Context, o api.OutputTyping) { told = append(told, o) }, time.Now)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- tracker.Run(ctx) }()
		body(tracker, &told)
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestEachChangeIsToldOnceWithAllWhoType(t *testing.T) {
	world(t, func(tracker *Tracker, told *[]api.OutputTyping) {
		tracker.Set(t.Context(), room, bob, true, time.Minute)
		tracker.Set(t.Context(), room, alice, true, time.Minute)
		tracker.Set(t.Context(), room, alice, true, time.Minute)
		tracker.Set(t.Context(), room, bob, false, 0)
		tracker.Set(t.Context(), room, bob, false, 0)
		want := [][]id.UserID{{bob}, {alice, bob}, {alice}}
		if len(*told) != len(want) {
			t.Fatalf("told %d times, want %d: %v", len(*told), len(want), *told)
		}
		var last int64
		for i, o := range *told {
			if !slices.Equal(o.Users, want[i]) || o.Number <= last || o.RoomID != room {
				t.Errorf("change %d: %+v, want %v and a number over %d", i, o, want[i], last)
			}
			last = o.Number
		}
	})
}

func TestARoomKeepsItsNumberWhileOthersChange(t *testing.T) {
	world(t, func(tracker *Tracker, told *[]api.OutputTyping) {
		tracker.Set(t.Context(), room, alice, true, time.Minute)
		tracker.Set(t.Context(), "!other:test", bob, true, time.Minute)
		if got := tracker.Rooms([]id.RoomID{room}); len(got) != 1 || got[0].Number != (*told)[0].Number {
			t.Errorf("%+v, want the number of the room's own change, %d", got, (*told)[0].Number)
		}
	})
}

func TestTypingEndsByItself(t *testing.T) {
	world(t, func(tracker *Tracker, told *[]api.OutputTyping) {
		tracker.Set(t.Context(), room, alice, true, 10*time.Second)
		tracker.Set(t.Context(), room, bob, true, time.Hour)
		<-time.After(9 * time.Second)
		tracker.Set(t.Context(), room, alice, true, 10*time.Second)
		<-time.After(9 * time.Second)
		synctest.Wait()
		if got := tracker.Rooms(nil); len(got) != 1 || len(got[0].Users) != 2 {
			t.Errorf("a prolonged user is gone: %v", got)
		}
		<-time.After(2 * time.Second)
		synctest.Wait()
		if got := tracker.Rooms([]id.RoomID{room}); len(got) != 1 || !slices.Equal(got[0].Users, []id.UserID{bob}) {
			t.Errorf("after the timeout: %v, want bob alone", got)
		}
		<-time.After(MaxTimeout)
		synctest.Wait()
		if got := tracker.Rooms(nil); len(got) != 0 {
			t.Errorf("somebody types for longer than %s: %v", MaxTimeout, got)
		}
		if last := (*told)[len(*told)-1]; len(last.Users) != 0 {
			t.Errorf("the last end is not told: %v", last)
		}
	})
}
