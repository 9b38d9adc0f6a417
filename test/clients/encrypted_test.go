package clients

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/matrix-org/dendrite/common/test"
	"github.com/matrix-org/dendrite/test/deploy"
	"github.com/matrix-org/dendrite/test/players"
	"github.com/matrix-org/dendrite/test/programs"
)

// stage is where an encrypted story is played.
type stage struct {
	account func(name string) person
	restart func() error // each component in turn
}

// Encrypted stories are played on a monolith and on a polylith. The database makes no difference to a client.
func TestEncrypted(t *testing.T) {
	for _, kind := range []deploy.Kind{deploy.MonolithSQLite, deploy.Polylith} {
		t.Run(string(kind), func(t *testing.T) {
			d := deploy.Own(t, kind, deploy.Options{})
			s := stage{
				account: func(name string) person { return account(t, d, name) },
				restart: func() error {
					for _, p := range d.Processes() {
						if err := p.Restart(t.Context()); err != nil {
							return err
						}
					}
					return nil
				},
			}
			t.Run("matrix-js-sdk", func(t *testing.T) { s.play(t, encryptedJS) })
			t.Run("together", func(t *testing.T) { s.play(t, encryptedTogether) })
		})
	}
}

func (s stage) play(t *testing.T, story func(t *testing.T, ctx context.Context, s stage)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*within)
	defer cancel()
	story(t, ctx, s)
}

func jsCompany(t *testing.T) *company {
	t.Helper()
	node, err := programs.Find("node", "nodejs")
	test.Needs(t, err)
	dir, err := npm()
	test.Needs(t, err)
	return hire(t, node, filepath.Join(dir, "actor.mjs"))
}

func nioCompany(t *testing.T) *company {
	t.Helper()
	interpreter, err := python()
	test.Needs(t, err)
	return hire(t, interpreter, filepath.Join("python", "actor.py"))
}

// goolmCompany is of mautrix with its encryption in Go.
func goolmCompany(t *testing.T) *company {
	t.Helper()
	t.Helper()
	return hire(t, players.Goolm(t))
}

// duringRestarts lets all talk while the stage is restarted, and then each read what the others said.
func duringRestarts(t *testing.T, s stage, room string, actors ...*actor) []message {
	t.Helper()
	restarted := make(chan struct{})
	said := make([][]message, len(actors))
	var all errgroup.Group
	all.Go(func() error {
		defer close(restarted)
		return s.restart()
	})
	for i, a := range actors {
		all.Go(func() error {
			for n := 0; ; n++ {
				m, err := a.trySay(room, fmt.Sprint("during restarts ", n))
				if err != nil {
					return err
				}
				said[i] = append(said[i], m)
				select {
				case <-restarted:
					return nil
				case <-time.After(500 * time.Millisecond): // as people talk
				}
			}
		})
	}
	if err := all.Wait(); err != nil {
		t.Fatal(err)
	}
	messages := slices.Concat(said...)
	for _, a := range actors {
		for _, m := range messages {
			a.reads(room, m)
		}
	}
	return messages
}

// encryptedJS has two people verify each other, talk, and lose and gain devices, with matrix-js-sdk and its Rust crypto
// module.
func encryptedJS(t *testing.T, ctx context.Context, s stage) {
	js := jsCompany(t)
	of := map[string]person{"alice": s.account("alice"), "bob": s.account("bob")}
	alice, bob := js.act(t, ctx, "alice", of["alice"], atOnce), js.act(t, ctx, "bob", of["bob"], atOnce)
	recovery := bootstrap(alice)
	bootstrap(bob)

	// Another device of bob's, which his first one verifies by messages to devices.
	bob2 := js.act(t, ctx, "bob2", of["bob"], atOnce)
	for _, b := range []*actor{bob, bob2} {
		b.devices(bob, bob.device, bob2.device) // a client ignores requests of devices that it does not know yet
	}
	verify(bob2, bob, "")
	_, verified := bob.devices(bob, bob.device, bob2.device)
	equal(t, "bob's own verified devices", len(verified), 2)

	room := meet(alice, bob, bob2)
	var all []message
	talk := func(readers ...*actor) {
		t.Helper()
		for _, a := range readers {
			m := a.say(room, "hello from "+a.name)
			all = append(all, m)
			for _, b := range readers {
				b.reads(room, m)
			}
		}
	}
	talk(alice, bob, bob2)

	alice.do("trusts", object{"user": bob.person.UserID, "verified": false}, &struct{}{})
	verify(alice, bob, room)
	alice.do("trusts", object{"user": bob.person.UserID, "verified": true}, &struct{}{})
	for _, b := range []*actor{bob, bob2} {
		b.do("trusts", object{"user": alice.person.UserID, "verified": true}, &struct{}{})
	}
	signed, verified := alice.devices(bob, bob.device, bob2.device)
	equal(t, "bob's devices that he has signed", len(signed), 2)
	equal(t, "bob's verified devices", len(verified), 2)

	all = append(all, duringRestarts(t, s, room, alice, bob, bob2)...)

	// A device that is deleted is told nothing more.
	before := alice.reads(room, alice.say(room, "before"))
	alice.sharedWith()
	bob.do("delete_device", object{"device": bob2.device}, &struct{}{})
	alice.devices(bob, bob.device)
	bob.devices(bob, bob.device)
	after := alice.reads(room, alice.say(room, "after"))
	bob.reads(room, after)
	all = append(all, before, after)
	if after.Session == before.Session {
		t.Error("the session that the deleted device knows is still used")
	}
	if got := alice.sharedWith(); slices.Contains(got, bob2.device) || !slices.Contains(got, bob.device) {
		t.Errorf("the new session is for %v; bob's device is %s, the deleted one %s", got, bob.device, bob2.device)
	}

	// A fresh device of alice's reads everything, when she types her recovery key.
	var backup struct {
		Count int `json:"count"`
	}
	alice.do("backed_up", nil, &backup)
	alice2 := js.act(t, ctx, "alice2", of["alice"], 5)
	if imported := restore(alice2, recovery); imported != backup.Count {
		t.Errorf("the fresh device has %d room keys of %d", imported, backup.Count)
	}
	readAll(alice2, room, all)
	_, verified = alice.devices(alice, alice.device, alice2.device)
	equal(t, "alice's own verified devices", len(verified), 2)

	dehydrated(t, ctx, js, room, recovery, alice, alice2, bob)
}

// dehydrated has no device of alice's but a dehydrated one when bob talks, and her next device reads it.
func dehydrated(t *testing.T, ctx context.Context, js *company, room, recovery string, alice, alice2, bob *actor) {
	t.Helper()
	var left struct {
		DeviceID string `json:"device_id"`
	}
	alice2.do("dehydrate", nil, &left)
	for _, a := range []*actor{alice, alice2} {
		a.do("logout", nil, &struct{}{})
	}
	bob.devices(alice, left.DeviceID)
	bob.sharedWith()
	m := bob.say(room, "for whoever wakes up")
	equal(t, "whom bob's session is for", fmt.Sprint(bob.sharedWith()), fmt.Sprint([]string{left.DeviceID}))
	alice3 := js.act(t, ctx, "alice3", alice.person, 5)
	restore(alice3, recovery)
	var told struct {
		RoomKeys int    `json:"room_keys"`
		Events   int    `json:"events"`
		Error    string `json:"error"`
	}
	alice3.do("dehydrate", nil, &told)
	if told.Error != "" || told.RoomKeys < 1 || told.Events < 1 {
		t.Errorf("the dehydrated device brought %+v", told)
	}
	readAll(alice3, room, []message{m})
}

// encryptedTogether has clients of three libraries talk in one room.
func encryptedTogether(t *testing.T, ctx context.Context, s stage) {
	alice := jsCompany(t).act(t, ctx, "alice", s.account("alice"), atOnce)
	bob := nioCompany(t).act(t, ctx, "bob", s.account("bob"), atOnce)
	carol := goolmCompany(t).act(t, ctx, "carol", s.account("carol"), atOnce)
	bootstrap(alice)
	room := meet(alice, bob, carol)
	all := []*actor{alice, bob, carol}
	talk := func() {
		t.Helper()
		for _, a := range all {
			m := a.say(room, "hello from "+a.name)
			for _, b := range all {
				b.reads(room, m)
			}
		}
	}
	talk()
	verify(alice, bob, "")
	for a, b := range map[*actor]*actor{alice: bob, bob: alice} {
		_, verified := a.devices(b, b.device)
		equal(t, "verified by "+a.name, fmt.Sprint(verified), fmt.Sprint([]string{b.device}))
	}
	for _, b := range []*actor{alice, bob} {
		carol.devices(b, b.device)
	}
	duringRestarts(t, s, room, all...)
	talk()
}

// bootstrap makes an account's cross-signing keys, secret storage and backup, and returns the recovery key.
func bootstrap(a *actor) string {
	a.t.Helper()
	var made struct {
		RecoveryKey string `json:"recovery_key"`
		Ready       bool   `json:"ready"`
	}
	a.do("bootstrap", nil, &made)
	equal(a.t, a.name+"'s cross-signing and secret storage", made.Ready, true)
	return made.RecoveryKey
}

func restore(a *actor, recovery string) int {
	a.t.Helper()
	var restored struct {
		Total    int  `json:"total"`
		Imported int  `json:"imported"`
		Ready    bool `json:"ready"`
	}
	a.do("restore", object{"recovery_key": recovery}, &restored)
	equal(a.t, a.name+"'s cross-signing and secret storage", restored.Ready, true)
	equal(a.t, a.name+"'s imported room keys", restored.Imported, restored.Total)
	return restored.Imported
}

// meet makes an encrypted room of the first, in which all the others are.
func meet(host *actor, guests ...*actor) string {
	host.t.Helper()
	var invite []string
	for _, g := range guests {
		if !slices.Contains(invite, g.person.UserID) {
			invite = append(invite, g.person.UserID)
		}
	}
	var made struct {
		Room string `json:"room"`
	}
	host.do("create_room", object{"invite": invite}, &made)
	for i, g := range guests {
		if slices.IndexFunc(guests, func(o *actor) bool { return o.person == g.person }) == i {
			g.do("join", object{"room": made.Room}, &struct{}{})
		}
	}
	for _, a := range append([]*actor{host}, guests...) {
		a.do("joined", object{"room": made.Room, "count": len(invite) + 1}, &struct{}{})
	}
	return made.Room
}

// readAll pages back, and finds all messages decrypted.
func readAll(a *actor, room string, all []message) {
	a.t.Helper()
	has := a.history(room)
	for _, m := range all {
		if got := has[m.Event]; got.Text != m.Text || got.Sender != m.Sender || !got.Encrypted {
			a.t.Errorf("%s has %+v, want %+v", a.name, got, m)
		}
	}
}

// sharedWith are the devices for which the client encrypted since it was asked last.
func (a *actor) sharedWith() []string {
	a.t.Helper()
	var answer struct {
		Devices []string `json:"devices"`
	}
	a.do("shared_with", nil, &answer)
	return answer.Devices
}
