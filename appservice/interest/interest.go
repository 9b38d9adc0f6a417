// Package interest finds out which application services are to be sent what happens in rooms (Application Service API,
// § Registration): by their namespaces of users, rooms and aliases, and by their users in a room.
//
// How many users of each service are joined to a room is counted along the roomserver's log, for the namespaces that
// are in force. When those change, a room is counted anew, from its members where the next record of it begins: so
// nothing is missed, whatever replica has read the registrations when.
package interest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/matrix-org/dendrite/appservice/pace"
	"github.com/matrix-org/dendrite/appservice/storage"
	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/lru"
	"github.com/matrix-org/dendrite/common/registration"
	"github.com/matrix-org/dendrite/common/sqlutil"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
)

// keptBytes is what counts of rooms take that stay in memory.
const keptBytes = 16 << 20

// skew is how much the clock of the roomserver may be behind.
const skew = 10 * time.Second

// Options are what a Judge is made of.
type Options struct {
	Server        id.ServerName
	Registrations *registration.Holder
	Room          *roomserver.RoomserverAPI
	Store         *storage.Store
	Log           *logrus.Entry
	// Registered tells when a service was registered, in ms: it is not sent what happened before. 0: not known, so now.
	Registered func(service string) int64
	// AtOnce says that streams are not gathered.
	AtOnce bool
	// Queued is told for which services a commit has queued something.
	Queued func(services []string)
	// RoomsChanged is told, in the transaction, of users whose membership has changed in a room of a service's
	// interest, and of rooms in which its interest has begun or ended. Nil: nobody asks.
	RoomsChanged func(ctx context.Context, tx *sqlutil.Tx, users []storage.ServiceUser,
		rooms []storage.ServiceRoom) error
}

// Judge turns records of the roomserver's log into rows of what waits for services. It is safe for concurrent use.
type Judge struct {
	Options
	wanted  atomic.Pointer[wanted]
	rooms   *lru.Cache[id.RoomID, kept] // as committed by this process
	streaks eventlog.Streaks
	// paces gather the records of a stream into fewer batches. Each is its partition's.
	paces [eventlog.Partitions]pace.Pace
}

// New makes a Judge.
func New(o Options) *Judge {
	return &Judge{Options: o,
		rooms: lru.New(keptBytes, func(_ id.RoomID, k kept) int { return 64 + len(k.Users)*48 })}
}

// wanted is a Set, and what of it is asked again and again.
type wanted struct {
	set *registration.Set
	// namespaces names those of all services that want requests. It is empty if no service is registered: then nothing
	// is known of rooms, and what was known of those in which something happens is given up.
	namespaces string
	aliases    bool // whether a service has a namespace of them
}

// now are the registrations that are in force.
func (j *Judge) now() *wanted {
	set := j.Registrations.Load()
	if w := j.wanted.Load(); w != nil && w.set == set {
		return w
	}
	w := &wanted{set: set}
	hash := sha256.New()
	for _, r := range set.All() {
		if r.URL != "" {
			fmt.Fprintf(hash, "%q %s\n", r.ID, r.Hash())
			w.aliases = w.aliases || len(r.Aliases) > 0
		}
	}
	if !set.Empty() {
		w.namespaces = hex.EncodeToString(hash.Sum(nil)[:16])
	}
	j.wanted.Store(w)
	return w
}

// kept is a room as a streak has left it. What it points to is not changed any more.
type kept struct {
	storage.Room
	streak int64
}

// Handle is the handler of a consumer of the roomserver's log.
func (j *Judge) Handle(ctx context.Context, records []eventlog.Record) (eventlog.Apply, error) {
	w := j.now()
	first, last := &records[0], &records[len(records)-1]
	if !j.AtOnce {
		j.paces[first.Partition].Wait(ctx)
	}
	b := &batch{j: j, wanted: w, rooms: make(map[id.RoomID]*room), partition: first.Partition,
		followed: eventlog.Followed{Seq: last.Seq, Streak: j.streaks.Of(first.Partition, first.Seq)}, nowMS: time.Now().UnixMilli()}
	if last.Seq-first.Seq != int64(len(records)-1) {
		b.followed.Seq = 0 // some were put aside, and may be applied out of turn
	}
	outputs := make([]any, len(records))
	var named []id.RoomID
	for i := range records {
		r := &records[i]
		var err error
		switch r.Type {
		case roomserver.TypeEvent:
			outputs[i], err = eventlog.Decode[roomserver.OutputEvent](r)
		case roomserver.TypeInvite:
			outputs[i], err = eventlog.Decode[roomserver.OutputInvite](r)
		default:
			err = fmt.Errorf("the roomserver's log has a %q, which this release does not know: update appservice",
				r.Type)
		}
		if err != nil {
			return nil, err
		}
		if roomID := id.RoomID(r.Key); !slices.Contains(named, roomID) {
			named = append(named, roomID)
		}
	}
	if err := b.load(ctx, named); err != nil {
		return nil, err
	}
	for i, output := range outputs {
		b.timeMS = records[i].Time
		var err error
		switch o := output.(type) {
		case *roomserver.OutputEvent:
			err = b.event(ctx, o)
		case *roomserver.OutputInvite:
			b.invite(o)
		}
		if err != nil {
			return nil, err
		}
	}
	return b.apply, nil
}
