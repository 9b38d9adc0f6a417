package typing

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/typingserver/api"
)

const (
	lounge = id.RoomID("!r:test")
	alice  = id.UserID("@alice:test")
	bob    = id.UserID("@bob:test")
)

func world(t *testing.T, body func(*Tracker, *[]api.OutputTyping)) {
	synctest.Test(t, func(t *testing.T) {
		var told []api.OutputTyping
		tracker := New(Options{Replica: "a", Server: "test", Now: time.Now,
			Announce: func(_ context.Context, o api.OutputTyping) { told = append(told, o) }})
		<-time.After(2 * MaxTimeout) // the first minutes are others' tests
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
		tracker.Set(t.Context(), lounge, bob, true, time.Minute)
		tracker.Set(t.Context(), lounge, alice, true, time.Minute)
		tracker.Set(t.Context(), lounge, alice, true, time.Minute)
		tracker.Set(t.Context(), lounge, bob, false, 0)
		tracker.Set(t.Context(), lounge, bob, false, 0)
		want := [][]id.UserID{{bob}, {alice, bob}, {alice}}
		if len(*told) != len(want) {
			t.Fatalf("told %d times, want %d: %v", len(*told), len(want), *told)
		}
		var last int64
		for i, o := range *told {
			if !slices.Equal(o.Users, want[i]) || o.Number <= last || o.RoomID != lounge {
				t.Errorf("change %d: %+v, want %v and a number over %d", i, o, want[i], last)
			}
			last = o.Number
		}
	})
}

func TestARoomKeepsItsNumberWhileOthersChange(t *testing.T) {
	world(t, func(tracker *Tracker, told *[]api.OutputTyping) {
		tracker.Set(t.Context(), lounge, alice, true, time.Minute)
		tracker.Set(t.Context(), "!other:test", bob, true, time.Minute)
		if got := tracker.Rooms([]id.RoomID{lounge}); len(got) != 1 || got[0].Number != (*told)[0].Number {
			t.Errorf("%+v, want the number of the room's own change, %d", got, (*told)[0].Number)
		}
	})
}

func TestTypingEndsByItself(t *testing.T) {
	world(t, func(tracker *Tracker, told *[]api.OutputTyping) {
		tracker.Set(t.Context(), lounge, alice, true, 10*time.Second)
		tracker.Set(t.Context(), lounge, bob, true, time.Hour)
		<-time.After(9 * time.Second)
		tracker.Set(t.Context(), lounge, alice, true, 10*time.Second)
		<-time.After(9 * time.Second)
		synctest.Wait()
		if got := tracker.Rooms(nil); len(got) != 1 || len(got[0].Users) != 2 {
			t.Errorf("a prolonged user is gone: %v", got)
		}
		<-time.After(2 * time.Second)
		synctest.Wait()
		if got := tracker.Rooms([]id.RoomID{lounge}); len(got) != 1 || !slices.Equal(got[0].Users, []id.UserID{bob}) {
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

func TestAnOutputNamesWhoHasChanged(t *testing.T) {
	world(t, func(tracker *Tracker, told *[]api.OutputTyping) {
		tracker.Set(t.Context(), lounge, alice, true, time.Minute)
		tracker.Set(t.Context(), lounge, "@eve:elsewhere", true, time.Minute)
		tracker.Set(t.Context(), lounge, alice, false, 0)
		want := [][]api.Change{{{UserID: alice, Typing: true}}, nil, {{UserID: alice}}}
		if len(*told) != len(want) {
			t.Fatalf("told %v", *told)
		}
		for i, o := range *told {
			if !slices.Equal(o.Changes, want[i]) {
				t.Errorf("change %d names %v, want %v", i, o.Changes, want[i])
			}
		}
	})
}

func TestWhoTypesIsBounded(t *testing.T) {
	world(t, func(tracker *Tracker, told *[]api.OutputTyping) {
		for i := range 3 * maxInRoom {
			tracker.Set(t.Context(), lounge, id.UserID(fmt.Sprintf("@%d:test", i)), true, time.Minute)
		}
		if got := tracker.Rooms(nil); len(got) != 1 || len(got[0].Users) != maxInRoom || len(*told) != maxInRoom {
			t.Errorf("%d type, told %d times", len(got[0].Users), len(*told))
		}
		for i := range maxTypists {
			tracker.Set(t.Context(), id.RoomID(fmt.Sprintf("!%d:test", i)), alice, true, time.Minute)
		}
		kept := func() (rooms, typists int) {
			tracker.mu.Lock()
			defer tracker.mu.Unlock()
			return len(tracker.rooms), tracker.typists
		}
		if rooms, typists := kept(); rooms > maxTypists || typists != maxTypists {
			t.Errorf("%d rooms and %d who type are kept", rooms, typists)
		}
		<-time.After(2 * time.Minute)
		synctest.Wait()
		if rooms, typists := kept(); rooms+typists != 0 {
			t.Errorf("%d rooms and %d who type stay", rooms, typists)
		}
	})
}

// A room moves to another replica when its own has ended, and back when that has come back.
func TestARoomMovesBetweenReplicas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var all []*Tracker
		var mu sync.Mutex
		var last api.OutputTyping
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		begin := func(replica string) *Tracker {
			tracker := New(Options{Replica: replica, Server: "test", Now: time.Now}) // announces below
			tracker.Announce = func(_ context.Context, o api.OutputTyping) {
				mu.Lock()
				defer mu.Unlock()
				if o.Number <= last.Number {
					t.Errorf("%+v comes after %+v", o, last)
				}
				last = o
				for _, other := range all {
					other.Hear(&o)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, tracker)
			go func() { done <- tracker.Run(ctx) }()
			return tracker
		}
		now := func(want ...id.UserID) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if !slices.Equal(last.Users, want) {
				t.Errorf("%v type, want %v", last.Users, want)
			}
		}
		a, b := begin("a"), begin("b")
		a.Set(ctx, lounge, alice, true, time.Minute)
		now(alice)
		b.Set(ctx, lounge, bob, true, 20*time.Second) // a has ended
		now(alice, bob)
		<-time.After(21 * time.Second)
		now(alice)
		anew := begin("a anew") // which has heard nothing, and gets the room back
		anew.Set(ctx, lounge, alice, false, 0)
		now()
		if left := b.Rooms(nil); len(left) != 0 {
			t.Errorf("the other replica still has %v", left)
		}
		b.Set(ctx, lounge, bob, true, time.Minute)
		anew.Set(ctx, lounge, bob, true, time.Minute) // goes on
		<-time.After(50 * time.Second)
		anew.Set(ctx, lounge, bob, true, time.Minute)
		<-time.After(50 * time.Second)
		now(bob)
		<-time.After(MaxTimeout)
		now()
		stop()
		for range all {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	})
}
