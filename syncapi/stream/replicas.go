package stream

import (
	"context"
	"encoding/json"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/periodic"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/syncapi/storage"
)

// wakeTopic is the ephemeral topic on which replicas tell each other of their commits. A release that tells them in
// another way uses another topic: replicas of two such releases do not hear each other, and see by the position that
// something was committed.
const wakeTopic = "syncapi_touched"

// wake is the message about a commit.
type wake struct {
	Replica  string            `json:"replica"`
	Prev     int64             `json:"prev"`
	Pos      int64             `json:"pos"`
	Touched  []storage.Touched `json:"touched"` // null in no message: one without it is none of this kind
	Redacted []id.EventID      `json:"redacted,omitempty"`
}

// Run tells other replicas, hears of them, and hears who types, until ctx ends.
func (h *Hub) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return h.follower.Run(ctx) })
	group.Go(func() error { return h.stopTyping(ctx) })
	if h.o.Presence != nil {
		group.Go(func() error { return h.runPresence(ctx) })
	}
	if h.o.Presence != nil && !h.o.Sole {
		group.Go(func() error {
			return h.o.Transport.Subscribe(ctx, presenceTopic, func(_ string, value []byte) {
				var m presenceMessage
				if err := json.Unmarshal(value, &m); err != nil {
					h.o.Log.WithError(err).Warn("a message of another replica cannot be read")
				} else if m.Replica != h.replica {
					for i := range m.Status {
						h.o.Presence.Heard(m.Status[i].UserID, m.Device, m.Status[i].State)
					}
					h.hearPresence(m)
					h.announceLater()
				}
			}, nil)
		})
	}
	if !h.o.Sole {
		group.Go(func() error { return h.publish(ctx) })
		group.Go(func() error {
			return h.o.Transport.Subscribe(ctx, wakeTopic, func(_ string, value []byte) { h.hear(ctx, value) }, nil)
		})
	}
	group.Go(func() error { // commits that nobody told of
		periodic.Run(ctx, time.Second, h.o.Log, "the position cannot be read now", h.Reach)
		return nil
	})
	return group.Wait()
}

func (h *Hub) publish(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case w := <-h.outbox:
			message, err := json.Marshal(w)
			if err == nil {
				err = h.o.Transport.Publish(ctx, wakeTopic, h.replica, message)
			}
			if err != nil && ctx.Err() == nil {
				h.o.Log.WithError(err).Warn("other replicas could not be told of a commit: they will see it within a second")
			}
		}
	}
}

// hear reads the rows of another replica's commit once, for all who are looking at its rooms.
func (h *Hub) hear(ctx context.Context, value []byte) {
	var w wake
	if err := json.Unmarshal(value, &w); err != nil {
		h.o.Log.WithError(err).Warn("a message of another replica cannot be read")
		return
	}
	h.mu.Lock()
	known := w.Replica == h.replica || w.Pos <= h.pos
	h.mu.Unlock()
	if known {
		return
	}
	if !w.isUnderstood() {
		h.o.Log.WithField("replica", w.Replica).Warn("a message of another release: its commit is seen within a second")
		return
	}
	u := update{prev: w.Prev, pos: w.Pos, touched: w.Touched, redacted: w.Redacted}
	if err := h.readRows(ctx, &u); err != nil {
		if ctx.Err() == nil {
			h.o.Log.WithError(err).Warn("a commit of another replica cannot be read now")
		}
		return // the position tells in a second
	}
	h.receive(u)
}

// readRows reads the rows of what an update touches.
func (h *Hub) readRows(ctx context.Context, u *update) error {
	rooms := make(map[storage.Kind][]id.RoomID)
	for _, t := range u.touched {
		switch t.Kind {
		case storage.KindTimeline, storage.KindReceipts:
			rooms[t.Kind] = append(rooms[t.Kind], t.Room)
		}
	}
	if len(rooms) == 0 {
		return nil
	}
	return h.o.Storage.Read(ctx, "commit of another replica", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
		if in := rooms[storage.KindTimeline]; in != nil {
			if u.timeline, err = h.o.Storage.Since(ctx, tx, in, u.prev, u.pos); err != nil {
				return err
			}
		}
		if in := rooms[storage.KindReceipts]; in != nil {
			u.receipts, err = h.o.Storage.ReceiptsSince(ctx, tx, in, u.prev, u.pos)
		}
		return err
	})
}
