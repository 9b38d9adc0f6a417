// Package delayed sends events later (MSC4140): clients ask for an event that tells of their leaving, say, and put it off as long as
// they are there.
//
// What is asked for is in the database before it is acknowledged. Any replica sends what is due, with a request key made of the
// delay's id: whatever is killed, it is sent once.
package delayed

import (
	"context"
	"errors"
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
	// sendFor is how long it is tried to send an event that somebody wants sent now.
	sendFor = 30 * time.Second
	// repeatable is how long a request may be repeated, so that one whose answer was late does not revive what was
	// sent or cancelled.
	repeatable = MaxDelay + 24*time.Hour
)

// Prefix begins the names of the proposal's parameters and errors.
const Prefix = "org.matrix.msc4140."

// Service keeps and sends the events of all users.
type Service struct {
	Store *storage.Store
	Room  *roomserver.RoomserverAPI
	// Local finds the account of a user of this server; M_NOT_FOUND if there is none that is active.
	Local func(ctx context.Context, user id.UserID) (*storage.Account, error)
	Log   *logrus.Entry
	Now   func() time.Time

	wake chan struct{}
}

// New makes a Service.
func New(s Service) *Service {
	s.wake = make(chan struct{}, 1)
	return &s
}

// Put has an event sent after its delay. The same id has it sent once. The error is M_UNKNOWN, with the proposal's errcode beside it,
// where there are too many or the delay is too long, and that of sending for users who may send nothing.
func (s *Service) Put(ctx context.Context, d *storage.Delayed, delay time.Duration) error {
	if _, err := s.sender(ctx, d.UserID); err != nil {
		return err
	}
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
		fresh, err := s.Store.UseOnce(ctx, tx, "delayed:"+d.ID, d.SinceMS+repeatable.Milliseconds())
		if err != nil || !fresh {
			return err
		}
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

// Update cancels an event, begins its delay anew, or sends it now. Whoever knows its id may do so; a caller who is
// known must be its user. M_NOT_FOUND if there is none, any more, and M_INVALID_PARAM for another action. An event
// that cannot be sent now goes on waiting, and the error is that of sending.
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
		default:
			err = mxerr.InvalidParam("action must be %s, %s or %s, not %q", Cancel, Restart, Send, action)
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
	return s.sendNow(ctx, found)
}

// sendNow sends an event that is claimed before it is due. If it is not sent, it waits as before. It does not end with
// the request: nobody could see or cancel the event until it is due if it stayed claimed.
func (s *Service) sendNow(ctx context.Context, d *storage.Delayed) error {
	ctx = context.WithoutCancel(ctx)
	sending, cancel := context.WithTimeout(ctx, sendFor)
	refused, err := s.send(sending, d)
	cancel()
	if err == nil && refused == nil {
		return s.delete(ctx, d)
	}
	err = errors.Join(err, s.release(ctx, d))
	s.look()
	if err == nil {
		err = refused
	}
	return err
}

func (s *Service) release(ctx context.Context, d *storage.Delayed) error {
	return s.Store.DB.Write(ctx, "delayed event waits again", func(ctx context.Context, tx *sqlutil.Tx) error {
		return s.Store.ReleaseDelayed(ctx, tx, d.ID)
	})
}

func (s *Service) delete(ctx context.Context, d *storage.Delayed) error {
	return s.Store.DB.Write(ctx, "delayed event is over", func(ctx context.Context, tx *sqlutil.Tx) error {
		return s.Store.DeleteDelayed(ctx, tx, d.ID)
	})
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
			err = s.finish(ctx, d)
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

// finish sends an event that is due. One that is refused is not tried again: it would come at a time that nobody
// asked for.
func (s *Service) finish(ctx context.Context, d *storage.Delayed) error {
	refused, err := s.send(ctx, d)
	if err != nil {
		return err // it is tried again
	}
	if refused != nil {
		s.Log.WithError(refused).WithField("user", d.UserID).Info("a delayed event was refused")
	}
	return s.delete(ctx, d)
}

// send sends an event that is claimed. It is refused if its user may not send it any more, or if somebody else has
// set the state meanwhile.
func (s *Service) send(ctx context.Context, d *storage.Delayed) (refused, err error) {
	err = s.mustBeWanted(ctx, d)
	var sender *storage.Account
	if err == nil {
		sender, err = s.sender(ctx, d.UserID)
	}
	if err == nil {
		_, err = s.Room.SendEvent(ctx, roomserver.SendEventRequest{RequestKey: roomserver.RequestKey("delayed " + d.ID),
			RoomID: d.RoomID, Sender: d.UserID, DeviceID: d.DeviceID, Guest: sender.Guest, Type: d.Type,
			StateKey: d.StateKey, Content: d.Content})
	}
	if refusal, is := mxerr.As(err); is && refusal.Status < http.StatusInternalServerError {
		return refusal, nil
	}
	if err != nil {
		err = fmt.Errorf("delayed event in %s: %w", d.RoomID, err)
	}
	return nil, err
}

// sender is the account of one who sends delayed events. The error says why they may not: what is put on an account
// holds for what was delayed before too, and counts at the time of sending, as power levels do.
func (s *Service) sender(ctx context.Context, user id.UserID) (*storage.Account, error) {
	account, err := s.Local(ctx, user)
	switch {
	case err != nil:
		return nil, err
	case account.Locked:
		return nil, mxerr.Forbidden("the account %s is locked: its delayed events are not sent", user)
	case account.Suspended:
		return nil, mxerr.Suspended()
	}
	return account, nil
}

// mustBeWanted is M_FORBIDDEN if somebody else has set the state since it was asked for, or if the user is not in the
// room any more.
func (s *Service) mustBeWanted(ctx context.Context, d *storage.Delayed) error {
	if d.StateKey == nil {
		return nil
	}
	now, err := s.present(ctx, d)
	if err == nil && now != nil && now.PDU.ID() != d.Replaces && now.PDU.Sender() != d.UserID {
		err = mxerr.Forbidden("%s has set this state since the event was delayed", now.PDU.Sender())
	}
	return err
}
