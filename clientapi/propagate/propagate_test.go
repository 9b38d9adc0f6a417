package propagate

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/matrix-org/dendrite/clientapi/accounts"
	"github.com/matrix-org/dendrite/clientapi/profiles"
	"github.com/matrix-org/dendrite/clientapi/storage"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/sqlutil"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
)

func openStore(t *testing.T) *storage.Store {
	t.Helper()
	db, err := sqlutil.Open(t.Context(), sqlutil.Options{ConnectionString: "file:" + filepath.Join(t.TempDir(), "test.db")}, sqlutil.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	store, err := storage.Open(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func TestWhatNoRequestFinishedIsToldLater(t *testing.T) {
	store, now := openStore(t), time.Now()
	clock := func() time.Time { return now }
	var left []id.RoomID
	var fail error
	room := &roomserver.RoomserverAPI{
		QueryMemberships: func(context.Context, roomserver.QueryMembershipsRequest) (roomserver.QueryMembershipsResponse, error) {
			return roomserver.QueryMembershipsResponse{Rooms: []roomserver.UserRoom{{RoomID: "!refuses"}, {RoomID: "!takes"}}}, nil
		},
		ChangeMembership: func(_ context.Context, q roomserver.ChangeMembershipRequest) (roomserver.SendEventResponse, error) {
			if q.RoomID == "!refuses" {
				return roomserver.SendEventResponse{}, mxerr.Forbidden("never")
			}
			if fail == nil {
				left = append(left, q.RoomID)
			}
			return roomserver.SendEventResponse{}, fail
		},
	}
	s := New(store, profiles.New(store, nil, "test", clock), room, logrus.NewEntry(logrus.New()), clock)
	err := store.DB.Write(t.Context(), "put", func(ctx context.Context, tx *sqlutil.Tx) error {
		return store.PutPending(ctx, tx, "@a:test", accounts.PendingLeave, now)
	})
	if err != nil {
		t.Fatal(err)
	}
	fail = errors.New("the roomserver is away")
	s.Tell(t.Context(), "@a:test", accounts.PendingLeave)
	fail = nil
	retry := func() {
		t.Helper()
		if err := s.Retry(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	retry()
	if len(left) != 0 {
		t.Fatal("what a request may still be at was told a second time")
	}
	now = now.Add(2 * retryAfter)
	retry()
	retry()
	if len(left) != 1 || left[0] != "!takes" {
		t.Errorf("left %v", left)
	}
}
