package api

import (
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/id"
)

const bob = id.UserID("@bob:test")

// followed is a Follower with what it was told.
type followed struct {
	*Follower
	told map[id.RoomID][]id.UserID
	n    int
}

func newFollowed(query func(QueryTypingRequest) (QueryTypingResponse, error)) *followed {
	f := &followed{told: make(map[id.RoomID][]id.UserID)}
	logger := logrus.New()
	logger.SetOutput(io.Discard)
	f.Follower = NewFollower(FollowerDeps{Transport: eventlog.NewEmbedded(), Log: logrus.NewEntry(logger),
		Typing: &TypingserverAPI{QueryTyping: func(_ context.Context, q QueryTypingRequest) (QueryTypingResponse, error) {
			return query(q)
		}},
		Changed: func(output OutputTyping) {
			f.told[output.RoomID] = output.Users
			f.n++
		}})
	return f
}

// types is what is told where bob types in a room.
func types(room id.RoomID, number int64) OutputTyping {
	return OutputTyping{RoomID: room, Users: []id.UserID{bob}, Number: number}
}

func TestWhatOvertakesCountsAndIsToldOnce(t *testing.T) {
	f := newFollowed(nil)
	f.hear(types("!a:test", 10), OutputTyping{RoomID: "!a:test", Number: 9}, types("!a:test", 11), types("!b:test", 5))
	if f.n != 2 || len(f.told) != 2 || !f.Types("!a:test", bob) || f.Types("!a:test", "@carol:test") {
		t.Errorf("told %d times: %v", f.n, f.told)
	}
}

func TestWhoTypesIsAskedOfTheReplicaThatKeepsTheRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFollowed(func(req QueryTypingRequest) (res QueryTypingResponse, err error) {
			if req.AffinityKey() == "!kept:test" { // the replica that is asked of all rooms knows of none
				res.Rooms = []OutputTyping{types("!kept:test", 1)}
			}
			return res, nil
		})
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- f.Run(ctx) }()
		f.hear(types("!kept:test", 1), types("!over:test", 1))
		<-time.After(2*CheckEvery + time.Second)
		synctest.Wait()
		if f.Types("!over:test", bob) || !f.Types("!kept:test", bob) {
			t.Errorf("told %v, want the end in one room", f.told)
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// Who asks at once hears of those who began to type before this process listened.
func TestAFollowerKnowsWhoTypedBeforeItListened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFollowed(func(QueryTypingRequest) (res QueryTypingResponse, err error) {
			<-time.After(time.Second)
			res.Rooms = []OutputTyping{types("!a:test", 1)}
			return res, nil
		})
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- f.Run(ctx) }()
		f.Wait(ctx)
		if !f.Types("!a:test", bob) {
			t.Error("the follower does not know who types")
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// Syncs must not wait for a typingserver that is away.
func TestNobodyWaitsLongForWhoTypes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFollowed(func(QueryTypingRequest) (QueryTypingResponse, error) {
			return QueryTypingResponse{}, errors.New("away")
		})
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- f.Run(ctx) }()
		began := time.Now()
		f.Wait(ctx)
		first := time.Since(began)
		f.Wait(ctx)
		if all := time.Since(began); first != knowsWithin || all != first {
			t.Errorf("waits for %v, then for %v more", first, all-first)
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// While no typingserver answers, nobody would tell an end.
func TestNobodyTypesWhereNobodyAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFollowed(func(QueryTypingRequest) (QueryTypingResponse, error) {
			return QueryTypingResponse{}, errors.New("away")
		})
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- f.Run(ctx) }()
		f.hear(types("!a:test", 1))
		<-time.After(CheckEvery)
		synctest.Wait()
		if !f.Types("!a:test", bob) {
			t.Error("typing ends where the typingserver is away for a moment")
		}
		<-time.After(silence + CheckEvery)
		synctest.Wait()
		if f.Types("!a:test", bob) {
			t.Error("typing does not end where the typingserver is away")
		}
		if got := slices.Collect(maps.Keys(f.told)); f.n != 2 || len(got) != 1 {
			t.Errorf("told %d times of %v", f.n, got)
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
