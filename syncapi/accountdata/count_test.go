package accountdata

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/common/test"
)

// What is counted is what is kept, whatever users do at the same time.
func TestTheCountIsRight(t *testing.T) {
	databases(t, func(t *testing.T, w *world) {
		random := rand.New(rand.NewPCG(test.Seed(t), 0))
		changes := make([]func() error, 300)
		for i := range changes {
			room := []id.RoomID{"", known}[random.IntN(2)]
			name, tag := fmt.Sprint("x.", random.IntN(5)), fmt.Sprint("u.", random.IntN(5))
			content := of(10 + random.IntN(50))
			changes[i] = [](func() error){
				func() error { return w.Put(t.Context(), alice, room, name, content) },
				func() error { return w.Put(t.Context(), alice, room, name, json.RawMessage(`{}`)) },
				func() error { return w.PutTag(t.Context(), alice, known, tag, content) },
				func() error { return w.DeleteTag(t.Context(), alice, known, tag) },
				func() error { return w.AddTag(t.Context(), alice, known, tag) },
				func() error { return w.Inherit(t.Context(), alice, known, id.RoomID("!next-"+tag[2:]+":here")) },
			}[random.IntN(6)]
		}
		var all sync.WaitGroup
		for part := range 10 {
			all.Go(func() {
				for i := part; i < len(changes); i += 10 {
					if err := changes[i](); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		var want, counted int64
		must(t, w.Storage.Read(t.Context(), "count", func(ctx context.Context, tx *sqlutil.Tx) error {
			kept, err := w.Storage.AccountData(ctx, tx, alice, 0, math.MaxInt64)
			for _, e := range kept {
				want += key{alice, e.RoomID, e.Type}.size(e.Content)
			}
			if err != nil {
				return err
			}
			return w.db.Stmt(`SELECT bytes FROM syncapi_account_data_usage WHERE user_id = $1`).QueryRow(ctx, tx,
				alice).Scan(&counted)
		}))
		if counted != want {
			t.Errorf("%d bytes are counted, %d are kept", counted, want)
		}
	})
}
