// Package receipts moves what users have read: receipts, public and private, and the fully-read marker (Client-Server
// API, § Receipts, § Fully read markers). A receipt stands at an event that its user sees in that room, and in the
// thread that it names. It never moves back, on whatever replicas receipts of one user arrive together.
package receipts

import (
	"context"
	"fmt"
	"time"

	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/sqlutil"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/syncapi/accountdata"
	"github.com/matrix-org/dendrite/syncapi/api"
	"github.com/matrix-org/dendrite/syncapi/storage"
)

// MainThread is the thread id of what is in no thread.
const MainThread = "main"

// MaxThreads is how many receipts for threads a user keeps in a room. Every member's initial sync has all of them.
// Beyond, those that were moved longest ago go.
const MaxThreads = 1000

// Service moves receipts.
type Service struct {
	Storage *storage.Database
	Room    *roomserver.RoomserverAPI
	// Output is the log of what other servers must hear.
	Output *eventlog.Topic
	// Private tells whether the private receipts of a user go into Output too.
	Private func(id.UserID) bool
	// Barrier waits until what the roomserver had committed when a request began can be seen here.
	Barrier func(ctx context.Context)
}

// Request is what a user has read of a room.
type Request struct {
	UserID id.UserID
	RoomID id.RoomID
	Thread string                // MainThread, the root of a thread, or nothing
	Events map[string]id.EventID // by type: storage.Read, storage.ReadPrivate, accountdata.FullyRead
}

// Mark moves receipts and the fully-read marker, all or none. M_FORBIDDEN for who is not in the room, M_NOT_FOUND for
// events that are not in it or that the user may not see, M_INVALID_PARAM for events that are not in the thread.
func (s *Service) Mark(ctx context.Context, req *Request) error {
	membership, err := s.Room.QueryMembership(ctx,
		roomserver.QueryMembershipRequest{RoomID: req.RoomID, UserID: req.UserID})
	if err != nil {
		return fmt.Errorf("membership: %w", err)
	}
	if membership.Membership != "join" {
		return mxerr.Forbidden("you are not in room %s", req.RoomID)
	}
	m := &move{Request: req}
	if m.places, err = s.places(ctx, req); err != nil {
		return err
	}
	if err := m.check(); err != nil {
		return err
	}
	// Clients repeat themselves, and that shall cost no commit.
	err = s.Storage.Read(ctx, "receipts", func(ctx context.Context, tx *sqlutil.Tx) error {
		return s.load(ctx, tx, m)
	})
	if err != nil || !m.moves() {
		return err
	}
	return s.commit(ctx, m)
}

// commit moves what moves forward from where it stands then. Others hear of a public receipt also if it is overtaken
// meanwhile: they compare it with what they have.
func (s *Service) commit(ctx context.Context, m *move) error {
	event, public := m.Events[storage.Read]
	public = public && m.isForward(storage.Read)
	hidden, private := m.Events[storage.ReadPrivate]
	private = private && m.isForward(storage.ReadPrivate) && s.Private(m.UserID)
	now := time.Now().UnixMilli()
	return s.Storage.Commit(ctx, "receipts", func(ctx context.Context, tx *sqlutil.Tx) error {
		if public {
			s.Output.Append(ctx, tx, string(m.UserID), api.TypeReceipt,
				&api.OutputReceipt{RoomID: m.RoomID, UserID: m.UserID, EventID: event,
					ThreadID: m.Thread, Timestamp: now})
		}
		if private {
			s.Output.Append(ctx, tx, string(m.UserID), api.TypePrivateReceipt,
				&api.OutputReceipt{RoomID: m.RoomID, UserID: m.UserID, EventID: hidden,
					ThreadID: m.Thread, Timestamp: now})
		}
		storage.AddReading(tx, 1, func(ctx context.Context, tx *sqlutil.Tx, pos int64) (*storage.Changes, error) {
			if err := s.load(ctx, tx, m); err != nil {
				return nil, err
			}
			if m.addsThread() {
				if err := s.Storage.TrimThreads(ctx, tx, m.RoomID, m.UserID, MaxThreads-1); err != nil {
					return nil, err
				}
			}
			return m.rows(pos, now)
		})
		return nil
	})
}

// load reads what stands now.
func (s *Service) load(ctx context.Context, tx *sqlutil.Tx, m *move) (err error) {
	if m.old, err = s.Storage.ReceiptsIn(ctx, tx, m.RoomID, m.UserID, m.Thread); err != nil {
		return err
	}
	if err := s.settle(ctx, tx, m); err != nil {
		return err
	}
	if _, asked := m.Events[accountdata.FullyRead]; asked {
		m.fullyRead, err = s.Storage.AccountDataOne(ctx, tx, m.UserID, m.RoomID, accountdata.FullyRead)
	}
	return err
}

// settle finds the places of receipts whose events were not known here yet when they came.
func (s *Service) settle(ctx context.Context, tx *sqlutil.Tx, m *move) error {
	var pending []id.EventID
	for i := range m.old {
		if isPending(&m.old[i]) {
			pending = append(pending, m.old[i].EventID)
		}
	}
	if pending == nil {
		return nil
	}
	rows, err := s.Storage.Events(ctx, tx, pending)
	if err != nil {
		return err
	}
	for i := range m.old {
		old := &m.old[i]
		if row, has := rows[old.EventID]; has && isPending(old) && row.RoomID == m.RoomID {
			old.Order, old.Place = row.Order, max(old.Place, row.Pos)
		}
	}
	return nil
}

// isPending tells whether a receipt's event has no place here yet.
func isPending(r *storage.Receipt) bool { return r.Order == roomserver.OrderKey{} }
