// Package input follows the roomserver's log and turns each change of a room into rows of the storage: its place in the timeline,
// what it does to memberships, and what it counts as a notification.
package input

import (
	"context"
	"fmt"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/syncapi/events"
	"github.com/matrix-org/dendrite/syncapi/notify"
	"github.com/matrix-org/dendrite/syncapi/storage"
)

// keptRooms is how many rooms' counts stay in memory.
const keptRooms = 20_000

// Input makes rows of records.
type Input struct {
	Server  id.ServerName
	Room    *roomserver.RoomserverAPI
	Storage *storage.Database
	Events  *events.Cache

	rules *ruleCache
	judge notify.Judge

	rooms *lru.Cache[id.RoomID, keptRoom] // as committed by this process

	streaks eventlog.Streaks
}

// keptRoom is a room as a streak has left it.
type keptRoom struct {
	storage.Room
	streak int64
}

// New makes an Input.
func New(server id.ServerName, room *roomserver.RoomserverAPI, db *storage.Database, cache *events.Cache) (*Input, error) {
	rooms, err := lru.New[id.RoomID, keptRoom](keptRooms)
	if err != nil {
		return nil, fmt.Errorf("cache of rooms: %w", err)
	}
	return &Input{Server: server, Room: room, Storage: db, Events: cache, rooms: rooms, rules: newRuleCache(db),
		judge: notify.Judge{Room: room, Events: cache}}, nil
}

// Forget makes the rules of users, and whom they ignore, be read again, or, if none is named, those of all.
func (in *Input) Forget(users []id.UserID) { in.rules.Invalidate(users) }

// Handle is the handler of a consumer of the roomserver's log. It asks and computes; what it returns only adds rows.
func (in *Input) Handle(ctx context.Context, records []eventlog.Record) (eventlog.Apply, error) {
	first, last := &records[0], &records[len(records)-1]
	b := &batch{in: in, rooms: make(map[id.RoomID]storage.Room), threads: make(map[threadKey]storage.Counts),
		partition: first.Partition, followed: eventlog.Followed{Seq: last.Seq, Streak: in.streaks.Of(first.Partition, first.Seq)}}
	if last.Seq-first.Seq != int64(len(records)-1) {
		b.followed.Seq = 0 // some were put aside, and may be applied out of turn
	}
	for i := range records {
		switch r := &records[i]; r.Type {
		case roomserver.TypeEvent:
			output, err := eventlog.Decode[roomserver.OutputEvent](r)
			if err != nil {
				return nil, err
			}
			b.events = append(b.events, output)
			b.order = append(b.order, entry{event: output})
		case roomserver.TypeInvite:
			output, err := eventlog.Decode[roomserver.OutputInvite](r)
			if err != nil {
				return nil, err
			}
			b.order = append(b.order, entry{invite: output})
		default:
			return nil, fmt.Errorf("the roomserver's log has a %q, which this release does not know: update syncapi", r.Type)
		}
	}
	if err := b.load(ctx); err != nil {
		return nil, err
	}
	for _, e := range b.order {
		var err error
		if e.event != nil {
			err = b.event(ctx, e.event)
		} else {
			b.invite(e.invite)
		}
		if err != nil {
			return nil, err
		}
	}
	if b.positions == 0 {
		return nil, nil
	}
	return func(_ context.Context, tx *sqlutil.Tx) error {
		storage.Add(tx, b.positions, func(_ context.Context, _ *sqlutil.Tx, first int64) (*storage.Changes, error) {
			return b.place(first), nil
		})
		tx.AfterCommit(b.keep)
		tx.OnRollback(b.forget)
		return nil
	}, nil
}

// keep remembers the counts as they are now, and the events.
func (b *batch) keep() {
	for _, output := range b.events {
		b.remember(output)
	}
	for room, r := range b.rooms {
		b.in.rooms.Add(room, keptRoom{r, b.followed.Streak})
	}
	b.in.streaks.Follow(b.partition, b.followed)
}

// forget makes the next batch read the counts: another replica may follow the partition now.
func (b *batch) forget() {
	for room := range b.rooms {
		b.in.rooms.Remove(room)
		b.in.rules.forgetRoom(room)
	}
}
