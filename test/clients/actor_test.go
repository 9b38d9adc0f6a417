package clients

import (
	"context"
	"fmt"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/matrix-org/dendrite/test/players"
)

// object is the arguments of a command.
type object = players.Object

// company is a program that plays encrypted clients of one library.
type company struct{ *players.Company }

func hire(t *testing.T, command ...string) *company {
	t.Helper()
	return &company{players.Hire(t, command...)}
}

// actor is an encrypted client that a program plays. What fails ends the test.
type actor struct {
	*company
	t      *testing.T
	ctx    context.Context
	name   string
	person person
	device string
}

// atOnce is how many events of a timeline a client gets at once that must miss none while its sync is away.
const atOnce = 200

// act logs in on a new device, which syncs from then on and gets so many events of a timeline at once.
func (c *company) act(t *testing.T, ctx context.Context, name string, p person, timeline int) *actor {
	t.Helper()
	a := &actor{company: c, t: t, ctx: ctx, name: name, person: p}
	var answer struct {
		DeviceID string `json:"device_id"`
	}
	a.do("login", object{"url": p.URL, "user_id": p.UserID, "password": p.Password, "timeline": timeline}, &answer)
	a.device = answer.DeviceID
	return a
}

func (a *actor) do(command string, arguments object, answer any) {
	a.t.Helper()
	if err := a.Call(a.ctx, a.name, command, arguments, answer); err != nil {
		a.t.Fatal(err)
	}
}

// message is what a client made of an event.
type message struct {
	Event     string `json:"event"`
	Sender    string `json:"sender"`
	Text      string `json:"text"`
	Encrypted bool   `json:"encrypted"`
	Session   string `json:"session"` // of Megolm
}

// say sends a text, which the client encrypts.
func (a *actor) say(room, text string) message {
	a.t.Helper()
	m, err := a.trySay(room, text)
	if err != nil {
		a.t.Fatal(err)
	}
	return m
}

func (a *actor) trySay(room, text string) (message, error) {
	m := message{Sender: a.person.UserID, Text: text}
	return m, a.Call(a.ctx, a.name, "say", object{"room": room, "text": text}, &m)
}

// reads waits until the client has decrypted a message, and looks at it.
func (a *actor) reads(room string, m message) message {
	a.t.Helper()
	var read message
	if err := a.Call(a.ctx, a.name, "read", object{"room": room, "event": m.Event}, &read); err != nil {
		a.t.Fatalf("%v: it is %+v", err, m)
	}
	if !read.Encrypted || read.Text != m.Text || read.Sender != m.Sender {
		a.t.Errorf("%s reads %+v, want %+v", a.name, read, m)
	}
	return read
}

// history pages back to the beginning of a room.
func (a *actor) history(room string) map[string]message {
	a.t.Helper()
	var answer struct {
		Messages []message `json:"messages"`
	}
	a.do("history", object{"room": room}, &answer)
	read := make(map[string]message)
	for _, m := range answer.Messages {
		read[m.Event] = m
	}
	return read
}

// devices waits until the client knows these devices of a user and no others, and tells which of them are signed by
// their owner and which of them are verified.
func (a *actor) devices(of *actor, ids ...string) (signed, verified []string) {
	a.t.Helper()
	var answer struct {
		Signed   []string `json:"signed"`
		Verified []string `json:"verified"`
	}
	a.do("devices", object{"user": of.person.UserID, "ids": ids}, &answer)
	return answer.Signed, answer.Verified
}

// verify makes both see the same numbers, and say so. With a room the messages are sent in it, else to the devices.
func verify(a, b *actor, room string) {
	a.t.Helper()
	var shown [2]struct {
		SAS []int `json:"sas"`
	}
	var both errgroup.Group
	asked := object{"user": b.person.UserID, "device": b.device}
	if room != "" {
		asked["room"] = room
	}
	both.Go(func() error { return a.Call(a.ctx, a.name, "verify", asked, &shown[0]) })
	both.Go(func() error { return b.Call(b.ctx, b.name, "accept", nil, &shown[1]) })
	if err := both.Wait(); err != nil {
		a.t.Fatal(err)
	}
	equal(a.t, "how many numbers are to be compared", len(shown[0].SAS), 3)
	equal(a.t, "the numbers", fmt.Sprint(shown[1].SAS), fmt.Sprint(shown[0].SAS))
	for _, u := range []*actor{a, b} {
		both.Go(func() error { return u.Call(u.ctx, u.name, "confirm", nil, &struct{}{}) })
	}
	if err := both.Wait(); err != nil {
		a.t.Fatal(err)
	}
}
