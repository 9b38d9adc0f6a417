package accounts

import (
	"context"
	"testing"
	"time"

	"github.com/matrix-org/dendrite/clientapi/storage"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

func TestADeviceIsMarkedAsSeenNowAndThen(t *testing.T) {
	store := world(t, 4).Store
	db := store.DB
	err := db.Write(t.Context(), "put", func(ctx context.Context, tx *sqlutil.Tx) error {
		return store.PutDevice(ctx, tx, storage.Device{UserID: "@a:test", DeviceID: "D"})
	})
	if err != nil {
		t.Fatal(err)
	}
	now := time.UnixMilli(1e12)
	l := NewLastSeen(store, func() time.Time { return now })
	seen := func() (at int64, ip string) {
		t.Helper()
		if err := l.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		err := db.ReadOne(t.Context(), "device", func(ctx context.Context, tx *sqlutil.Tx) error {
			d, err := store.Device(ctx, tx, "@a:test", "D")
			at, ip = d.LastSeenMS, d.LastSeenIP
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return at, ip
	}
	l.Note("@a:test", "D", "192.0.2.1")
	if at, ip := seen(); at != now.UnixMilli() || ip != "192.0.2.1" {
		t.Errorf("seen at %d from %s", at, ip)
	}
	first := now.UnixMilli()
	now = now.Add(seenEvery - time.Second)
	l.Note("@a:test", "D", "192.0.2.2")
	before := db.Count()
	if at, _ := seen(); at != first || db.Count().Since(before).Commits != 0 {
		t.Error("a device is written each time that it is seen")
	}
	now = now.Add(time.Second)
	l.Note("@a:test", "D", "192.0.2.2")
	if at, ip := seen(); at != now.UnixMilli() || ip != "192.0.2.2" {
		t.Errorf("seen at %d from %s", at, ip)
	}
}
