package consumers

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	clientapi "github.com/matrix-org/dendrite/clientapi/api"
	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/syncapi/storage"
)

// Whoever is in many rooms makes no message to other replicas that is larger than one may be.
func TestWhatIsToldOfKeysIsBounded(t *testing.T) {
	const bob = id.UserID("@bob:example.org")
	url := "file:" + filepath.Join(t.TempDir(), "sync.db")
	db, err := sqlutil.Open(t.Context(), sqlutil.Options{ConnectionString: url}, sqlutil.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	var last storage.Changes
	kept, err := storage.New(t.Context(), db, func(c storage.Changes) { last = c })
	if err != nil {
		t.Fatal(err)
	}
	rooms := 0
	join := func(until int) {
		t.Helper()
		place := func(_ context.Context, _ *sqlutil.Tx, pos int64) (*storage.Changes, error) {
			c := new(storage.Changes)
			for ; rooms < until; rooms++ {
				c.Memberships = append(c.Memberships, storage.Membership{UserID: bob, Pos: pos + int64(rooms),
					Membership: "join", RoomID: id.RoomID(fmt.Sprintf("!%d:example.org", rooms))})
			}
			return c, nil
		}
		if err := kept.Write(t.Context(), "rooms", maxTold+1, place); err != nil {
			t.Fatal(err)
		}
	}
	change := func() {
		t.Helper()
		value, err := json.Marshal(&clientapi.OutputDeviceList{UserID: bob})
		if err != nil {
			t.Fatal(err)
		}
		apply, err := applyUsers(kept, []eventlog.Record{{Type: clientapi.TypeDeviceList, Value: value}}, func() {})
		if err == nil {
			err = kept.Commit(t.Context(), "keys", apply)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	join(maxTold)
	change()
	if told := last.AllTouched(); len(told) != 1+maxTold {
		t.Errorf("%d are told, want the user and each room", len(told))
	}
	join(maxTold + 1)
	change()
	told := last.AllTouched()
	anywhere := storage.Touched{Kind: storage.KindDeviceListsAnywhere, User: bob}
	if len(told) != 2 || !slices.Contains(told, anywhere) {
		t.Errorf("of too many rooms %d are told", len(told))
	}
}
