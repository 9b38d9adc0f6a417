package clients

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

func TestMautrix(t *testing.T) {
	tell(t, func(t *testing.T, c cast) story {
		ctx, cancel := context.WithTimeout(t.Context(), within)
		defer cancel()
		s, err := mautrixStory(ctx, c)
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}

// mautrixUser is a client that syncs, and what sync has told it.
type mautrixUser struct {
	*mautrix.Client
	mutex    sync.Mutex
	changed  chan struct{} // closed when there is more
	received []string
	joined   map[id.UserID]bool
	invite   *event.Event
	roomName string
	typist   string
	read     map[id.UserID]id.EventID
}

// login makes a client that does not sync yet.
func login(ctx context.Context, p person) (*mautrixUser, error) {
	client, err := mautrix.NewClient(p.URL, "", "")
	if err != nil {
		return nil, err
	}
	_, err = client.Login(ctx, &mautrix.ReqLogin{Type: mautrix.AuthTypePassword, Password: p.Password, StoreCredentials: true,
		Identifier: mautrix.UserIdentifier{Type: mautrix.IdentifierTypeUser, User: p.UserID}})
	return &mautrixUser{Client: client, changed: make(chan struct{}), joined: make(map[id.UserID]bool), read: make(map[id.UserID]id.EventID)}, err
}

// follow syncs until the context ends.
func (u *mautrixUser) follow(ctx context.Context) error {
	syncer := u.Syncer.(*mautrix.DefaultSyncer)
	on := func(kind event.Type, do func(e *event.Event)) {
		syncer.OnEventType(kind, func(_ context.Context, e *event.Event) {
			u.mutex.Lock()
			defer u.mutex.Unlock()
			do(e)
			close(u.changed)
			u.changed = make(chan struct{})
		})
	}
	on(event.EventMessage, func(e *event.Event) { u.received = append(u.received, e.ID.String()) })
	on(event.StateRoomName, func(e *event.Event) { u.roomName = e.Content.AsRoomName().Name })
	on(event.StateMember, func(e *event.Event) {
		switch member := id.UserID(e.GetStateKey()); e.Content.AsMember().Membership {
		case event.MembershipJoin:
			u.joined[member] = true
		case event.MembershipInvite:
			if member == u.UserID {
				u.invite = e
			}
		}
	})
	on(event.EphemeralEventTyping, func(e *event.Event) {
		for _, typist := range e.Content.AsTyping().UserIDs {
			u.typist = typist.String()
		}
	})
	on(event.EphemeralEventReceipt, func(e *event.Event) {
		for read, receipts := range *e.Content.AsReceipt() {
			for reader := range receipts[event.ReceiptTypeRead] {
				u.read[reader] = read
			}
		}
	})
	if err := u.SyncWithContext(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// until waits until sync has told something.
func (u *mautrixUser) until(ctx context.Context, what string, holds func() bool) error {
	for {
		u.mutex.Lock()
		holds, changed := holds(), u.changed
		u.mutex.Unlock()
		if holds {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return errors.Join(errors.New(u.UserID.String()+" waits in vain: "+what), ctx.Err())
		}
	}
}

func mautrixStory(ctx context.Context, c cast) (s story, err error) {
	alice, err := login(ctx, c.Alice)
	if err != nil {
		return s, err
	}
	bob, err := login(ctx, c.Bob)
	if err != nil {
		return s, err
	}
	following, stop := context.WithCancel(ctx)
	var syncs errgroup.Group
	for _, u := range []*mautrixUser{alice, bob} {
		syncs.Go(func() error { return u.follow(following) })
	}
	err = mautrixTalk(ctx, c, alice, bob, &s)
	stop()
	if err := errors.Join(err, syncs.Wait()); err != nil {
		return s, err
	}
	s.Received = map[string][]string{"alice": alice.received, "bob": bob.received}
	s.RoomName, s.Typist, s.Read = bob.roomName, bob.typist, alice.read[bob.UserID].String()
	return s, mautrixPage(ctx, c.Bob, &s)
}

func mautrixTalk(ctx context.Context, c cast, alice, bob *mautrixUser, s *story) error {
	made, err := alice.CreateRoom(ctx, &mautrix.ReqCreateRoom{Name: "Tea", Preset: "private_chat"})
	if err != nil {
		return err
	}
	room := made.RoomID
	s.Room = room.String()
	if _, err := alice.InviteUser(ctx, room, &mautrix.ReqInviteUser{UserID: bob.UserID}); err != nil {
		return err
	}
	if err := bob.until(ctx, "the invite", func() bool { return bob.invite != nil && bob.invite.RoomID == room }); err != nil {
		return err
	}
	s.Inviter = bob.invite.Sender.String()
	if _, err := bob.JoinRoomByID(ctx, room); err != nil {
		return err
	}
	for _, u := range []*mautrixUser{alice, bob} {
		if err := u.until(ctx, "both have joined", func() bool { return u.joined[alice.UserID] && u.joined[bob.UserID] }); err != nil {
			return err
		}
	}
	sent := make([][]string, 2)
	var sending errgroup.Group
	for i, u := range []*mautrixUser{alice, bob} {
		sending.Go(func() error {
			for range c.Messages {
				answer, err := u.SendText(ctx, room, "hello")
				if err != nil {
					return err
				}
				sent[i] = append(sent[i], answer.EventID.String())
			}
			return nil
		})
	}
	if err := sending.Wait(); err != nil {
		return err
	}
	if err := alice.until(ctx, "all messages", func() bool { return len(alice.received) >= 2*c.Messages }); err != nil {
		return err
	}
	if _, err := alice.UserTyping(ctx, room, true, 30*time.Second); err != nil {
		return err
	}
	if err := bob.until(ctx, "alice types", func() bool { return bob.typist != "" }); err != nil {
		return err
	}
	last, err := alice.SendText(ctx, room, "and this")
	if err != nil {
		return err
	}
	s.Sent = map[string][]string{"alice": append(sent[0], last.EventID.String()), "bob": sent[1]}
	for _, u := range []*mautrixUser{alice, bob} {
		if err := u.until(ctx, "the last message", func() bool { return slices.Contains(u.received, last.EventID.String()) }); err != nil {
			return err
		}
	}
	if err := bob.MarkRead(ctx, room, last.EventID); err != nil {
		return err
	}
	return alice.until(ctx, "bob's receipt", func() bool { return alice.read[bob.UserID] == last.EventID })
}

// mautrixPage reads the room on a second device.
func mautrixPage(ctx context.Context, p person, s *story) error {
	second, err := login(ctx, p)
	if err != nil {
		return err
	}
	filter, err := second.CreateFilter(ctx, &mautrix.Filter{Room: &mautrix.RoomFilter{Timeline: &mautrix.FilterPart{Limit: 5}}})
	if err != nil {
		return err
	}
	first, err := second.SyncRequest(ctx, 0, "", filter.FilterID, false, "")
	if err != nil {
		return err
	}
	take := func(e *event.Event) {
		if e.Type.Type == event.EventMessage.Type {
			s.Paged = append(s.Paged, e.ID.String())
		}
	}
	timeline := first.Rooms.Join[id.RoomID(s.Room)].Timeline
	slices.Reverse(timeline.Events)
	for _, e := range timeline.Events {
		take(e)
	}
	for from := timeline.PrevBatch; from != ""; s.Pages++ {
		page, err := second.Messages(ctx, id.RoomID(s.Room), from, "", mautrix.DirectionBackward, nil, 8)
		if err != nil {
			return err
		}
		for _, e := range page.Chunk {
			take(e)
		}
		from = page.End
	}
	slices.Reverse(s.Paged)
	return nil
}
