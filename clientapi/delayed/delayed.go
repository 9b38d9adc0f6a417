// Package delayed sends events later (MSC4140): clients ask for an event that tells of their leaving, say, and put it off as long as
// they are there.
//
// What is asked for is in the database before it is acknowledged. Any replica sends what is due, with a request key made of the
// delay's id: whatever is killed, it is sent once.
package delayed

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/matrix-org/dendrite/clientapi/storage"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/sqlutil"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
)

// Limits of what clients may ask for.
const (
	MaxDelay  = 24 * time.Hour
	MaxEvents = 100 // of one user
)

const (
	atOnce = 50
	// lookEvery is how often events are looked for that another replica took on, and has not sent.
	lookEvery = 5 * time.Second
)

// Prefix begins the names of the proposal's parameters and errors.
const Prefix = "org.matrix.msc4140."

// Service keeps and sends the events of all users.
type Service struct {
	Store  *storage.Store
	Room   *roomserver.RoomserverAPI
	Active func(ctx context.Context, users []id.UserID) (active, guests []id.UserID, err error)
	Log    *logrus.Entry
	Now    func() time.Time

	wake chan struct{}
}

// New makes a Service.
func New(s Service) *Service {
	s.wake = make(chan struct{}, 1)
	return &s
}

// Put has an event sent after its delay. The same id has it sent once. The error is M_UNKNOWN, with the proposal's errcode beside it,
// where there are too many or the delay is too long.
func (s *Service) Put(ctx context.Context, d *storage.Delayed, delay time.Duration) error {
	if delay > MaxDelay {
		return refused("MAX_DELAY_EXCEEDED", "an event can be delayed by %d ms", MaxDelay.Milliseconds()).With(Prefix+"max_delay", MaxDelay.Milliseconds())
	}
	if d.StateKey != nil {
		now, err := s.present(ctx, d)
		if err != nil {
			return err
		}
		if now != nil {
			d.Replaces = now.PDU.ID()
		}
	}
	d.DelayMS, d.SinceMS = delay.Milliseconds(), s.Now().UnixMilli()
	d.DueMS = d.SinceMS + d.DelayMS
	err := s.Store.DB.Write(ctx, "delay event", func(ctx context.Context, tx *sqlutil.Tx) error {
		n, err := s.Store.CountDelayed(ctx, tx, d.UserID, d.ID)
		if err != nil {
			return err
		}
		if n >= MaxEvents {
			return refused("MAX_DELAYED_EVENTS_EXCEEDED", "you have %d delayed events: cancel some first", n)
		}
		return s.Store.InsertDelayed(ctx, tx, d)
	})
	s.look()
	return err
}

func refused(errcode, format string, args ...any) *mxerr.Error {
	return mxerr.New(http.StatusBadRequest, "M_UNKNOWN", format, args...).With(Prefix+"errcode", "M_"+errcode)
}

// present is the state event in the place of a delayed one; nil if there is none, or if the user may not see it.
func (s *Service) present(ctx context.Context, d *storage.Delayed) (*roomserver.Event, error) {
	found, err := s.Room.QueryState(ctx, roomserver.QueryStateRequest{Viewer: roomserver.Viewer{UserID: d.UserID}, RoomID: d.RoomID,
		Keys: []roomserver.StateKeyTuple{{Type: d.Type, StateKey: *d.StateKey}}})
	if err != nil || len(found.Events) == 0 {
		return nil, err
	}
	return &found.Events[0], nil
}

// List lists what a user has asked for and what is not sent yet.
func (s *Service) List(ctx context.Context, user id.UserID) (all []storage.Delayed, err error) {
	err = s.Store.DB.ReadOne(ctx, "delayed events", func(ctx context.Context, tx *sqlutil.Tx) error {
		all, err = s.Store.ListDelayed(ctx, tx, user)
		return err
	})
	return all, err
}

// The actions of Update.
const (
	Cancel  = "cancel"
	Restart = "restart"
	Send    = "send"
)

// Update cancels an event, begins its delay anew, or sends it now. Whoever knows its id may do so; a caller who is known must be its
// user. M_NOT_FOUND if there is none, any more.
func (s *Service) Update(ctx context.Context, delayID, action string, by id.UserID) error {
	var found *storage.Delayed
	done := false
	err := s.Store.DB.Write(ctx, "change delayed event", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
		if found, err = s.Store.OneDelayed(ctx, tx, delayID); err != nil || found == nil || by != "" && by != found.UserID {
			return err
		}
		switch action {
		case Cancel:
			done, err = s.Store.CancelDelayed(ctx, tx, delayID)
		case Restart:
			done, err = s.Store.RestartDelayed(ctx, tx, delayID, s.Now().UnixMilli())
		case Send:
			done, err = s.Store.ClaimDelayed(ctx, tx, found)
		}
		return err
	})
	if err == nil && !done {
		err = mxerr.NotFound("there is no delayed event %s", delayID)
	}
	if err != nil || action != Send {
		s.look()
		return err
	}
	return s.send(ctx, found)
}

func (s *Service) look() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Run sends what is due, until ctx ends.
func (s *Service) Run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		case <-timer.C:
		}
		wait, err := s.sendDue(ctx)
		if err != nil && ctx.Err() == nil {
			s.Log.WithError(err).Warn("delayed events are not sent yet")
		}
		timer.Reset(wait)
	}
}

// sendDue sends what is due, and tells how long there is nothing more to do.
func (s *Service) sendDue(ctx context.Context) (time.Duration, error) {
	now := s.Now().UnixMilli()
	var due []storage.Delayed
	next := now + lookEvery.Milliseconds()
	err := s.Store.DB.Read(ctx, "due events", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
		if due, err = s.Store.DueDelayed(ctx, tx, now, atOnce); err != nil || len(due) > 0 {
			return err
		}
		next, err = s.Store.NextDelayed(ctx, tx, next)
		return err
	})
	if err != nil {
		return lookEvery, err
	}
	for i := range due {
		d, claimed := &due[i], false
		err := s.Store.DB.Write(ctx, "claim delayed event", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
			claimed, err = s.Store.ClaimDelayed(ctx, tx, d)
			return err
		})
		if err == nil && claimed {
			err = s.send(ctx, d)
		}
		if err != nil {
			return lookEvery, err
		}
	}
	if len(due) > 0 {
		return 0, nil
	}
	return min(lookEvery, time.Duration(max(next-now, 1))*time.Millisecond), nil
}

// send sends an event that is claimed, unless it is over: its user is no more, or somebody else has set the state meanwhile.
func (s *Service) send(ctx context.Context, d *storage.Delayed) error {
	over, err := s.over(ctx, d)
	if err != nil {
		return err
	}
	if !over {
		_, err = s.Room.SendEvent(ctx, roomserver.SendEventRequest{RequestKey: roomserver.RequestKey("delayed " + d.ID), RoomID: d.RoomID, Sender: d.UserID,
			DeviceID: d.DeviceID, Type: d.Type, StateKey: d.StateKey, Content: d.Content})
	}
	if _, refused := mxerr.As(err); err != nil && !refused {
		return fmt.Errorf("delayed event in %s: %w", d.RoomID, err) // it is tried again
	}
	sent := err
	err = s.Store.DB.Write(ctx, "delayed event is sent", func(ctx context.Context, tx *sqlutil.Tx) error { return s.Store.DeleteDelayed(ctx, tx, d.ID) })
	if err == nil && sent != nil {
		s.Log.WithError(sent).WithField("user", d.UserID).Info("a delayed event was refused")
	}
	return err
}

func (s *Service) over(ctx context.Context, d *storage.Delayed) (bool, error) {
	active, _, err := s.Active(ctx, []id.UserID{d.UserID})
	if err != nil || len(active) == 0 {
		return true, err
	}
	if d.StateKey == nil {
		return false, nil
	}
	now, err := s.present(ctx, d)
	if _, refused := mxerr.As(err); refused {
		return true, nil // the user is not in the room any more
	}
	return now != nil && now.PDU.ID() != d.Replaces && now.PDU.Sender() != d.UserID, err
}
