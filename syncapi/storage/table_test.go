package storage

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// Rows that are read together have nothing in common.
func TestRowsAreReadApart(t *testing.T) {
	each(t, func(t *testing.T, processes []*Database) {
		d := processes[0]
		want := make(map[id.RoomID]string)
		err := d.Write(t.Context(), "invites", 3, func(_ context.Context, _ *sqlutil.Tx, pos int64) (*Changes, error) {
			c := new(Changes)
			for n := range int64(3) {
				m := Membership{UserID: alice, RoomID: id.RoomID(fmt.Sprintf("!%d:test", n)), Pos: pos + n, Membership: "invite"}
				for i := range 3 - n {
					m.Stripped = append(m.Stripped, json.RawMessage(fmt.Sprintf(`{"room":%d,"n":%d}`, n, i)))
				}
				want[m.RoomID] = fmt.Sprintf("%s", m.Stripped)
				c.Memberships = append(c.Memberships, m)
			}
			return c, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		var history []Membership
		err = d.Read(t.Context(), "invites", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
			history, err = d.History(ctx, tx, alice)
			return err
		})
		if err != nil || len(history) != len(want) {
			t.Fatalf("%d rows, %v", len(history), err)
		}
		for _, m := range history {
			if got := fmt.Sprintf("%s", m.Stripped); got != want[m.RoomID] {
				t.Errorf("the state of %s is %s, want %s", m.RoomID, got, want[m.RoomID])
			}
		}
	})
}
