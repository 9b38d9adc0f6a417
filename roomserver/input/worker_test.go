package input

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
)

func proposes(p Proto) Build {
	return func(context.Context, View) ([]Proto, id.EventID, error) { return []Proto{p}, "", nil }
}

func said(body string) Proto { return proto(alice, "m.room.message", nil, `{"body":"`+body+`"}`) }

// hold keeps a room's worker busy until the test lets it go.
func (w *world) hold(roomID id.RoomID) (letGo func()) {
	busy, free, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
	var once sync.Once
	go func() {
		defer close(done)
		_, err := w.in.Local(context.Background(), roomID, "",
			func(context.Context, View) ([]Proto, id.EventID, error) {
				once.Do(func() { close(busy) })
				<-free
				return []Proto{said("held")}, "", nil
			})
		if err != nil {
			w.t.Error(err)
		}
	}()
	<-busy
	return func() { close(free); <-done }
}

// waits tells whether so many inputs of a room wait.
func (w *world) waits(roomID id.RoomID, n int) {
	for has := -1; has != n; runtime.Gosched() {
		w.in.mu.Lock()
		if has = 0; w.in.workers[roomID] != nil {
			has = len(w.in.workers[roomID].waiting)
		}
		w.in.mu.Unlock()
	}
}

func TestAnInputWhoseCallerHasGoneIsNotRun(t *testing.T) {
	w := newWorld(t)
	roomID := w.room("11")
	letGo := w.hold(roomID)
	ctx, leave := context.WithCancel(t.Context())
	var ran atomic.Int64
	var all sync.WaitGroup
	const callers = 120 // more than one batch
	for range callers {
		all.Go(func() {
			_, err := w.in.Local(ctx, roomID, "", func(context.Context, View) ([]Proto, id.EventID, error) {
				ran.Add(1)
				return []Proto{said("nobody reads the answer")}, "", nil
			})
			if !errors.Is(err, context.Canceled) {
				t.Errorf("a call that was given up ended with %v", err)
			}
		})
	}
	w.waits(roomID, callers)
	leave()
	all.Wait()
	letGo()
	if _, err := w.say(roomID, "", "after"); err != nil {
		t.Fatal(err)
	}
	if n := ran.Load(); n != 0 {
		t.Errorf("%d inputs were run whose callers had gone", n)
	}
	w.waits(roomID, 0)
}

func TestInputsThatWaitAreBounded(t *testing.T) {
	w := newWorld(t)
	full, other := w.room("11"), w.room("11")
	letGo := w.hold(full)
	var all sync.WaitGroup
	for range maxWaitingFor {
		all.Go(func() {
			if _, err := w.say(full, "", "waits"); err != nil {
				t.Error(err)
			}
		})
	}
	w.waits(full, maxWaitingFor)
	if _, err := w.say(full, "", "one too many"); !errors.Is(err, mxerr.ErrUnavailable) {
		t.Errorf("beyond %d inputs that wait, one ended with %v", maxWaitingFor, err)
	}
	if _, err := w.say(other, "", "meanwhile"); err != nil {
		t.Errorf("a room that is full held another back: %v", err)
	}
	letGo()
	all.Wait()
	if _, err := w.say(full, "", "after"); err != nil {
		t.Error(err)
	}
	w.in.mu.Lock()
	defer w.in.mu.Unlock()
	if w.in.waiting != 0 {
		t.Errorf("%d inputs are counted as waiting when there are none", w.in.waiting)
	}
}
