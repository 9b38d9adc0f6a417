package bridges

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/matrix-org/dendrite/test/deploy"
)

// within is how long a story may take.
const within = 2 * time.Minute

// person is somebody on Matrix whose client syncs, and what it was told.
type person struct {
	*mautrix.Client
	t        *testing.T
	ctx      context.Context
	password string

	mu      sync.Mutex
	changed chan struct{}
	events  []*event.Event
}

// newPerson makes an account as an operator does, logs in, and syncs until the test ends.
func newPerson(t *testing.T, ctx context.Context, d *deploy.Deployment, name string) *person {
	t.Helper()
	path, err := deploy.Binary()
	if err != nil {
		t.Fatal(err)
	}
	name += "-" + strings.ToLower(rand.Text()[:8])
	password := rand.Text()
	cmd := exec.CommandContext(ctx, path, "create-account", "--config", d.File, "--username", name, "--password-stdin")
	cmd.Stdin = strings.NewReader(password + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	client, err := mautrix.NewClient(d.URL(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	who := mautrix.UserIdentifier{Type: mautrix.IdentifierTypeUser, User: name}
	if _, err := client.Login(ctx, &mautrix.ReqLogin{Type: mautrix.AuthTypePassword, Identifier: who, Password: password,
		StoreCredentials: true}); err != nil {
		t.Fatal(err)
	}
	p := &person{Client: client, t: t, ctx: ctx, password: password, changed: make(chan struct{})}
	p.follow()
	return p
}

// follow syncs until the test ends.
func (p *person) follow() {
	syncer, _ := p.Syncer.(*mautrix.DefaultSyncer)
	syncer.OnEvent(func(_ context.Context, e *event.Event) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.events = append(p.events, e)
		close(p.changed)
		p.changed = make(chan struct{})
	})
	ctx, stop := context.WithCancel(p.ctx)
	done := make(chan error, 1)
	go func() { done <- p.SyncWithContext(ctx) }()
	p.t.Cleanup(func() {
		stop()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
			p.t.Errorf("%s can not sync: %v", p.UserID, err)
		}
	})
}

// await waits for the first event that is so, and returns it.
func (p *person) await(what string, is func(e *event.Event) bool) *event.Event {
	p.t.Helper()
	for at := 0; ; {
		p.mu.Lock()
		events, changed := p.events, p.changed
		p.mu.Unlock()
		for ; at < len(events); at++ {
			if is(events[at]) {
				return events[at]
			}
		}
		select {
		case <-changed:
		case <-p.ctx.Done():
			p.t.Fatalf("%s waits in vain: %s; the last events are %s", p.UserID, what, tell(events[max(0, len(events)-20):]))
		}
	}
}

func tell(events []*event.Event) string {
	var out strings.Builder
	for _, e := range events {
		fmt.Fprintf(&out, "\n  %s %s %s %q %s", e.RoomID, e.Type.Type, e.Sender, e.GetStateKey(), e.Content.VeryRaw)
	}
	return out.String()
}

// hears waits for a message of somebody with a text in it.
func (p *person) hears(room id.RoomID, sender id.UserID, text string) *event.Event {
	p.t.Helper()
	return p.await(fmt.Sprintf("that %s says %q in %s", sender, text, room), func(e *event.Event) bool {
		return e.Type == event.EventMessage && e.RoomID == room && e.Sender == sender &&
			strings.Contains(e.Content.AsMessage().Body, text)
	})
}

// sees waits until somebody has a membership.
func (p *person) sees(room id.RoomID, user id.UserID, membership event.Membership) *event.Event {
	p.t.Helper()
	return p.await(fmt.Sprintf("that %s has membership %s in %s", user, membership, room), func(e *event.Event) bool {
		return e.Type == event.StateMember && e.RoomID == room && e.GetStateKey() == string(user) &&
			e.Content.AsMember().Membership == membership
	})
}

// invited waits for an invite of somebody to a room that is not among these, and accepts it.
func (p *person) invited(by id.UserID, known ...id.RoomID) id.RoomID {
	p.t.Helper()
	invite := p.await(fmt.Sprintf("an invite of %s to a room besides %v", by, known), func(e *event.Event) bool {
		if e.Type != event.StateMember || e.GetStateKey() != string(p.UserID) || e.Sender != by ||
			e.Content.AsMember().Membership != event.MembershipInvite {
			return false
		}
		for _, room := range known {
			if e.RoomID == room {
				return false
			}
		}
		return true
	})
	if _, err := p.JoinRoomByID(p.ctx, invite.RoomID); err != nil {
		p.t.Fatal(err)
	}
	return invite.RoomID
}

// says sends a text.
func (p *person) says(room id.RoomID, text string) {
	p.t.Helper()
	if _, err := p.SendText(p.ctx, room, text); err != nil {
		p.t.Fatal(err)
	}
}
