package rules

import (
	"context"
	"encoding/json"
	"path/filepath"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/common/test"
	"github.com/matrix-org/dendrite/syncapi/pushrules"
	"github.com/matrix-org/dendrite/syncapi/storage"
)

const alice = id.UserID("@alice:test")

// open makes a store of push rules.
func open(t *testing.T, connection string) *Store {
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
	stored, err := storage.New(t.Context(), db, func(storage.Changes) {})
	if err != nil {
		t.Fatal(err)
	}
	return &Store{Storage: stored}
}

// Of many who remove one rule at a time, one removes it, and the others learn that it is gone. What others write
// together with them is written at once.
func TestARefusalIsAnAnswerToItsUserAlone(t *testing.T) {
	body := func(t *testing.T, s *Store) {
		ctx := t.Context()
		put := func(d *pushrules.Document) error {
			return d.Put(pushrules.Room, pushrules.Rule{RuleID: "!r:test", Actions: []json.RawMessage{}}, "", "")
		}
		remove := func(d *pushrules.Document) error { return d.Delete(pushrules.Room, "!r:test") }
		for range 30 {
			if err := s.Change(ctx, alice, put); err != nil {
				t.Fatal(err)
			}
			const n = 8
			var refused [n]bool
			placed := 0 // of a write of somebody else; it is counted by one goroutine at a time
			var group errgroup.Group
			for i := range n {
				group.Go(func() error {
					err := s.Change(ctx, alice, remove)
					if refused[i] = mxerr.Is(err, "M_NOT_FOUND"); refused[i] {
						return nil
					}
					return err
				})
			}
			group.Go(func() error {
				return s.Storage.Write(ctx, "another", 1,
					func(context.Context, *sqlutil.Tx, int64) (*storage.Changes, error) {
						placed++
						return new(storage.Changes), nil
					})
			})
			if err := group.Wait(); err != nil {
				t.Fatal(err)
			}
			removed := 0
			for _, r := range refused {
				if !r {
					removed++
				}
			}
			if removed != 1 || placed != 1 {
				t.Fatalf("a rule was removed %d times, another write was made %d times", removed, placed)
			}
		}
	}
	t.Run("sqlite", func(t *testing.T) { body(t, open(t, "file:"+filepath.Join(t.TempDir(), "sync.db"))) })
	t.Run("postgres", func(t *testing.T) { body(t, open(t, test.Postgres(t))) })
}
