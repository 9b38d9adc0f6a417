package stream

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/syncapi/storage"
)

// A commit whose answer is lost is heard of, although nobody tells of it.
func TestACommitWhoseAnswerIsLostIsHeardOf(t *testing.T) {
	h := newHub(t, roomA)
	h.o.Sole = true
	withStorage(t, h)
	db := h.o.Storage
	s := asleep(t, h, alice, "PHONE")["PHONE"]
	db.DB().SetFailpoints(func(name string) error {
		if name == "commit.after" {
			return errors.New("the connection is gone")
		}
		return nil
	})
	data := storage.AccountData{UserID: alice, Type: "x", Content: []byte("1")}
	place := func(_ context.Context, _ *sqlutil.Tx, pos int64) (*storage.Changes, error) {
		data.Pos = pos
		return &storage.Changes{AccountData: []storage.AccountData{data}}, nil
	}
	if err := db.Write(t.Context(), "test", 1, place); !errors.Is(err, sqlutil.ErrCommitUnknown) {
		t.Fatal(err)
	}
	if err := h.Reach(t.Context()); err == nil {
		t.Error("it is settled while no answer arrives")
	}
	db.DB().SetFailpoints(nil)
	if err := h.Reach(t.Context()); err != nil {
		t.Fatal(err)
	}
	if h.Position() <= data.Pos || !s.isWoken() {
		t.Errorf("position %d after a commit at %d; it wakes nobody, or too few are known", h.Position(), data.Pos)
	}
	before := db.DB().Count()
	if err := h.Reach(t.Context()); err != nil || db.DB().Count().Since(before).Statements != 0 {
		t.Errorf("the position is asked for again: %v", err)
	}
}

// A database that was put back to an earlier time is said to be, and not read for ever.
func TestADatabaseThatWasPutBackIsNotReadForEver(t *testing.T) {
	h := newHub(t)
	h.o.Sole = true
	withStorage(t, h)
	h.mu.Lock()
	h.reset(h.pos + time.Minute.Microseconds())
	h.mu.Unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	var e *mxerr.Error
	if _, err := h.LookAs(ctx, alice, "PHONE", 0, 0); !errors.As(err, &e) || e.Status != 503 {
		t.Errorf("a view: %v", err)
	}
	h.keepView(alice, new(View))
	if _, err := h.LookAs(ctx, alice, "PHONE", 0, 0); !errors.As(err, &e) || e.Status != 503 {
		t.Errorf("keys: %v", err)
	}
}
