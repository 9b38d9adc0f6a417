package storage

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

func open(t *testing.T, onCommit func(Changes)) *Database {
	t.Helper()
	return openAt(t, "file:"+filepath.Join(t.TempDir(), "sync.db"), onCommit)
}

func openAt(t *testing.T, connection string, onCommit func(Changes)) *Database {
	t.Helper()
	db, err := sqlutil.Open(t.Context(), sqlutil.Options{ConnectionString: connection}, sqlutil.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	d, err := New(t.Context(), db, onCommit)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestPositionsFollowEachOtherAndAFailureHurtsNobodyElse(t *testing.T) {
	var commits []Changes
	d := open(t, func(c Changes) { commits = append(commits, c) })
	broken := errors.New("broken")
	var all sync.WaitGroup
	const n = 200
	for i := range n {
		all.Go(func() {
			err := d.Write(t.Context(), "test", 2, func(_ context.Context, _ *sqlutil.Tx, first int64) (*Changes, error) {
				if i%10 == 0 {
					return nil, broken
				}
				user := id.UserID(fmt.Sprintf("@%d:example.org", i))
				return &Changes{AccountData: []AccountData{{UserID: user, Type: "a", Pos: first, Content: []byte("1")}, {UserID: user, Type: "b", Pos: first + 1, Content: []byte("2")}}}, nil
			})
			if wantsError := i%10 == 0; wantsError != errors.Is(err, broken) {
				t.Errorf("write %d: %v", i, err)
			}
		})
	}
	all.Wait()
	last, seen := int64(0), make(map[int64]bool)
	for _, c := range commits {
		if c.Prev != last || c.Pos <= c.Prev {
			t.Errorf("a commit goes from %d to %d after %d", c.Prev, c.Pos, last)
		}
		last = c.Pos
		for _, a := range c.AccountData {
			if a.Pos <= c.Prev || a.Pos > c.Pos || seen[a.Pos] {
				t.Errorf("a row of a commit from %d to %d has position %d, seen %v", c.Prev, c.Pos, a.Pos, seen[a.Pos])
			}
			seen[a.Pos] = true
		}
	}
	if len(seen) != 2*(n-n/10) {
		t.Errorf("%d rows were committed, want %d", len(seen), 2*(n-n/10))
	}
	pos, err := d.Position(t.Context())
	if err != nil || pos != last {
		t.Errorf("the position is %d (%v), want %d", pos, err, last)
	}
}

func TestAWriteWhoseCallerHasGoneDoesNotBegin(t *testing.T) {
	d := open(t, func(Changes) {})
	begun, goOn := make(chan struct{}), make(chan struct{})
	var first, second error
	var all sync.WaitGroup
	all.Go(func() {
		first = d.Commit(t.Context(), "first", func(context.Context, *sqlutil.Tx) error {
			close(begun)
			<-goOn
			return nil
		})
	})
	<-begun
	ctx, leave := context.WithCancel(t.Context())
	happened := false
	all.Go(func() {
		second = d.Commit(ctx, "second", func(context.Context, *sqlutil.Tx) error {
			happened = true
			return nil
		})
	})
	for waits := false; !waits; {
		d.committer.mu.Lock()
		waits = len(d.committer.waiting) == 1
		d.committer.mu.Unlock()
		runtime.Gosched()
	}
	leave()
	close(goOn)
	all.Wait()
	if first != nil || !errors.Is(second, context.Canceled) || happened {
		t.Errorf("the first: %v; the second: %v, happened: %v", first, second, happened)
	}
}

func TestOnlySoManyWritesWait(t *testing.T) {
	d := open(t, func(Changes) {})
	c := &d.committer
	c.running, c.waiting = true, make([]*write, maxWaiting)
	err := d.Commit(t.Context(), "one more", func(context.Context, *sqlutil.Tx) error { return nil })
	if e, is := mxerr.As(err); !is || e.Status != http.StatusServiceUnavailable {
		t.Errorf("one more: %v", err)
	}
}
