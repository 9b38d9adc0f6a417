// Package propagate tells rooms what became of their members: a new name or avatar, or that the account has ended. What is to be
// told is a row that the change wrote in its own transaction; the request that made the change tells it at once, and Retry tells
// what such a request could not finish.
package propagate

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"

	"github.com/matrix-org/dendrite/clientapi/accounts"
	"github.com/matrix-org/dendrite/clientapi/profiles"
	"github.com/matrix-org/dendrite/clientapi/storage"
	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/sqlutil"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
)

// RetryEvery is how often Retry is to be called.
const RetryEvery = 10 * time.Second

const (
	atOnce      = 8                // rooms of a user
	requestTime = 20 * time.Second // of Tell
	retryAfter  = 45 * time.Second // longer than requestTime: then no request is at it any more
	retryBatch  = 100
)

// Service tells rooms.
type Service struct {
	store    *storage.Store
	profiles *profiles.Service
	room     *roomserver.RoomserverAPI
	log      *logrus.Entry
	now      func() time.Time

	mu   sync.Mutex
	busy map[id.UserID]*userTurn // one at a time for each user, so that the last word is the newest
}

type userTurn struct {
	sync.Mutex
	waiting int // with the one whose turn it is
}

// New makes a Service.
func New(store *storage.Store, p *profiles.Service, room *roomserver.RoomserverAPI, log *logrus.Entry, now func() time.Time) *Service {
	return &Service{store: store, profiles: p, room: room, log: log, now: now, busy: make(map[id.UserID]*userTurn)}
}

// Tell tells the rooms of a user what is pending, as far as there is time. What is left stays pending, so nothing is lost if the
// client goes away.
func (s *Service) Tell(ctx context.Context, user id.UserID, what string) {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	s.tell(ctx, user, what)
}

func (s *Service) tell(ctx context.Context, user id.UserID, what string) {
	defer s.lock(user)()
	if err := s.one(ctx, user, what); err != nil {
		s.log.WithError(err).WithFields(logrus.Fields{"user": user, "what": what}).Warn("rooms are not told yet")
	}
}

func (s *Service) lock(user id.UserID) (unlock func()) {
	s.mu.Lock()
	turn := s.busy[user]
	if turn == nil {
		turn = new(userTurn)
		s.busy[user] = turn
	}
	turn.waiting++
	s.mu.Unlock()
	turn.Lock()
	return func() {
		turn.Unlock()
		s.mu.Lock()
		defer s.mu.Unlock()
		if turn.waiting--; turn.waiting == 0 {
			delete(s.busy, user)
		}
	}
}

// Retry tells what has been pending for a while.
func (s *Service) Retry(ctx context.Context) error {
	var old []storage.Pending
	err := s.store.DB.ReadOne(ctx, "pending", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
		old, err = s.store.OldPending(ctx, tx, s.now().Add(-retryAfter).UnixMilli(), retryBatch)
		return err
	})
	for _, p := range old {
		if ctx.Err() != nil {
			break
		}
		s.tell(ctx, p.UserID, p.What)
	}
	return err
}

func (s *Service) one(ctx context.Context, user id.UserID, what string) error {
	var p *storage.Pending
	err := s.store.DB.ReadOne(ctx, "pending of a user", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
		p, err = s.store.Pending(ctx, tx, user, what)
		return err
	})
	if err != nil || p == nil {
		return err
	}
	memberships, tell := []string{"join"}, s.profile
	if what == accounts.PendingErase { // before the user's last events, which are those that others join after
		if _, err := s.room.EraseUser(ctx, roomserver.EraseUserRequest{UserID: user}); err != nil {
			return fmt.Errorf("erase the user's events: %w", err)
		}
	}
	if what == accounts.PendingLeave || what == accounts.PendingErase {
		memberships, tell = []string{"join", "invite", "knock"}, s.leave
	}
	names, err := s.profiles.Names(ctx, user)
	if err != nil {
		return err
	}
	rooms, err := s.room.QueryMemberships(ctx, roomserver.QueryMembershipsRequest{UserID: user, Memberships: memberships})
	if err != nil {
		return fmt.Errorf("rooms of the user: %w", err)
	}
	group, telling := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for _, room := range rooms.Rooms {
		group.Go(func() error {
			err := tell(telling, user, names[user], room)
			if e, is := mxerr.As(err); is && e.Status < http.StatusInternalServerError && e.Status != http.StatusTooManyRequests {
				s.log.WithError(err).WithFields(logrus.Fields{"user": user, "room": room.RoomID, "what": what}).Info("a room does not take it")
				return nil // it will not take it later either
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return s.store.DB.Write(ctx, "told", func(ctx context.Context, tx *sqlutil.Tx) error { return s.store.DeletePending(ctx, tx, *p) })
}

type memberContent struct {
	AvatarURL   string `json:"avatar_url,omitempty"`
	DisplayName string `json:"displayname,omitempty"`
	Membership  string `json:"membership"`
}

func (s *Service) profile(ctx context.Context, user id.UserID, p roomserver.Profile, room roomserver.UserRoom) error {
	content, err := httputil.Marshal(memberContent{AvatarURL: p.AvatarURL, DisplayName: p.DisplayName, Membership: "join"})
	if err != nil {
		return fmt.Errorf("encode a member event: %w", err)
	}
	stateKey := string(user)
	_, err = s.room.SendEvent(ctx, roomserver.SendEventRequest{
		// The event that is replaced makes the key another one when the same name comes back later.
		RequestKey: key("profile", string(user), string(room.RoomID), string(room.EventID), string(content)),
		RoomID:     room.RoomID, Sender: user, Type: "m.room.member", StateKey: &stateKey, Content: json.RawMessage(content)})
	if err != nil {
		return fmt.Errorf("new member event in %s: %w", room.RoomID, err)
	}
	return nil
}

func (s *Service) leave(ctx context.Context, user id.UserID, _ roomserver.Profile, room roomserver.UserRoom) error {
	_, err := s.room.ChangeMembership(ctx, roomserver.ChangeMembershipRequest{Action: roomserver.ActionLeave, RoomID: room.RoomID, Sender: user,
		Target: user, RequestKey: key("deactivate", string(user), string(room.RoomID), string(room.EventID))})
	if err != nil {
		return fmt.Errorf("leave %s: %w", room.RoomID, err)
	}
	return nil
}

func key(parts ...string) roomserver.RequestKey {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return roomserver.RequestKey(base64.RawURLEncoding.EncodeToString(sum[:]))
}
