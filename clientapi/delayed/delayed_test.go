package delayed_test

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/matrix-org/dendrite/clientapi/delayed"
	"github.com/matrix-org/dendrite/clientapi/storage"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
)

// A caller who goes away while their event is being sent changes nothing: it is sent and over, or waits and can be
// cancelled.
func TestACallerWhoGoesAwayLeavesNoEventHalfSent(t *testing.T) {
	file := "file:" + filepath.Join(t.TempDir(), "test.db")
	db, err := sqlutil.Open(t.Context(), sqlutil.Options{ConnectionString: file}, sqlutil.Deps{})
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
	fails := errors.New("the roomserver is not there")
	for _, outcome := range []error{nil, fails} {
		ctx, goAway := context.WithCancel(t.Context())
		room := &roomserver.RoomserverAPI{
			SendEvent: func(ctx context.Context, _ roomserver.SendEventRequest) (roomserver.SendEventResponse, error) {
				goAway()
				return roomserver.SendEventResponse{}, errors.Join(outcome, ctx.Err())
			},
		}
		s := delayed.New(delayed.Service{Store: store, Room: room, Log: logrus.NewEntry(logrus.New()), Now: time.Now,
			Local: func(context.Context, id.UserID) (*storage.Account, error) { return &storage.Account{}, nil }})
		event := &storage.Delayed{ID: "one", UserID: "@a:test", RoomID: "!room", Type: "m.room.message",
			Content: []byte(`{}`)}
		if outcome != nil {
			event.ID = "two"
		}
		if err := s.Put(t.Context(), event, time.Hour); err != nil {
			t.Fatal(err)
		}
		if err := s.Update(ctx, event.ID, delayed.Send, ""); !errors.Is(err, outcome) {
			t.Errorf("sending says %v, want %v", err, outcome)
		}
		waits, err := s.List(t.Context(), event.UserID)
		if err != nil {
			t.Fatal(err)
		}
		if (len(waits) == 1) != (outcome != nil) {
			t.Errorf("sending said %v, and %d events wait", outcome, len(waits))
		}
		cancelled := s.Update(t.Context(), event.ID, delayed.Cancel, "")
		if (cancelled == nil) != (outcome != nil) {
			t.Errorf("sending said %v, and cancelling %v", outcome, cancelled)
		}
	}
}
