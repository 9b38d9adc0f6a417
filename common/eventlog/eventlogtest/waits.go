package eventlogtest

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/matrix-org/dendrite/common/eventlog"
)

// waits has many wait for records that cannot be applied yet: each is one entry, those who leave are none, and the
// others are told when the records are applied.
func waits(t *testing.T, w *world) {
	const leaving, staying = 300, 100
	p := w.producer(w.h.New(t))
	f := w.follower(w.h.New(t))
	p.sendAll(4, 0, 2)
	w.reached(f)
	w.fails(func(*eventlog.Record) error { return errors.New("not yet") }, nil)
	p.sendAll(4, 2, 4)
	heads, err := w.source.Heads(t.Context(), eventlog.HeadsRequest{Topic: topicName})
	if err != nil {
		t.Fatal(err)
	}
	short, leave := context.WithCancel(t.Context())
	long, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var leavers, stayers sync.WaitGroup
	for range leaving {
		leavers.Go(func() {
			if err := f.WaitFor(short, heads.Heads); !errors.Is(err, context.Canceled) {
				t.Errorf("a call that was given up ended with %v", err)
			}
		})
	}
	for range staying {
		stayers.Go(func() {
			if err := f.WaitFor(long, heads.Heads); err != nil {
				t.Error(err)
			}
		})
	}
	waiting := func(n int) func() bool { return func() bool { return f.Waiting() == n } }
	eventually(t, "all calls are an entry each", waiting(leaving+staying))
	leave()
	leavers.Wait()
	if n := f.Waiting(); n != staying {
		t.Errorf("%d entries are kept for %d calls that wait", n, staying)
	}
	w.fails(nil, nil)
	stayers.Wait()
	if n := f.Waiting(); n != 0 {
		t.Errorf("%d entries are kept after all calls have ended", n)
	}
	w.exact()
}
