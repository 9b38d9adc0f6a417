package stream

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/syncapi/events"
	"github.com/matrix-org/dendrite/syncapi/storage"
)

// A commit of this process can be seen in the database before its Hub is told of it. Whoever has seen it there, as the
// barrier before a sync does, has the Hub reach it.
func TestAHubReachesACommitThatItIsYetToBeToldOf(t *testing.T) {
	cache := events.New(&roomserver.RoomserverAPI{})
	h := New(Options{Sole: true, Events: cache, RulesChanged: func([]id.UserID) {}}, "here")
	committed, tell := make(chan int64), make(chan struct{})
	file := "file:" + filepath.Join(t.TempDir(), "sync.db")
	db, err := sqlutil.Open(t.Context(), sqlutil.Options{ConnectionString: file}, sqlutil.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	d, err := storage.New(t.Context(), db, func(c storage.Changes) {
		committed <- c.Pos
		<-tell
		h.Committed(c)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Start(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	written := make(chan error)
	go func() {
		written <- d.Write(t.Context(), "test", 1, func(context.Context, *sqlutil.Tx, int64) (*storage.Changes, error) {
			return new(storage.Changes), nil
		})
	}()
	pos := <-committed
	if err := h.Reach(t.Context()); err != nil {
		t.Error(err)
	}
	if at := h.Position(); at != pos {
		t.Errorf("the Hub is at %d, and the database at %d", at, pos)
	}
	close(tell)
	if err := <-written; err != nil {
		t.Error(err)
	}
	if d.Uncertain() {
		t.Error("nothing is under way, and the Hub would ask the database")
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}
