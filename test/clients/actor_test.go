package clients

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// object is the arguments of a command.
type object map[string]any

// company is a program that plays encrypted clients of one library. Each line of its standard input is a command for
// one of them, with an id; a line on its file descriptor 3 has that id, and the answer or what failed.
type company struct {
	in    io.WriteCloser
	mutex sync.Mutex
	last  int
	calls map[int]chan<- reply
	ended error // why no more answers come
}

type reply struct {
	ID     int             `json:"id"`
	Answer json.RawMessage `json:"answer"`
	Error  string          `json:"error"`
}

// hire starts the program. It ends with the test, and what it printed is told if the test failed.
func hire(t *testing.T, command ...string) *company {
	t.Helper()
	said, says, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(command[0], command[1:]...)
	var printed bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = &printed, &printed, []*os.File{says}
	c := &company{calls: make(map[int]chan<- reply)}
	if c.in, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(cmd.Start(), says.Close()); err != nil {
		t.Fatal(err)
	}
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		c.hear(said)
	}()
	t.Cleanup(func() {
		kill := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() }) // it may have ended by itself
		defer kill.Stop()
		if err := errors.Join(c.in.Close(), cmd.Wait()); err != nil {
			t.Errorf("%s: %v", command[0], err)
		}
		<-heard
		if t.Failed() {
			log, err := os.CreateTemp("", "client-*.log")
			if err == nil {
				_, err = log.Write(printed.Bytes())
				err = errors.Join(err, log.Close())
			}
			t.Logf("what %s printed is in %s (%v)", command[0], log.Name(), err)
		}
	})
	return c
}

// hear brings answers to those who wait for them, until the program ends.
func (c *company) hear(said *os.File) {
	defer said.Close()
	lines := bufio.NewReader(said)
	for {
		line, err := lines.ReadBytes('\n')
		var r reply
		if err == nil {
			err = json.Unmarshal(line, &r)
		}
		c.mutex.Lock()
		if err != nil {
			c.ended = fmt.Errorf("the program has ended: %w", err)
			for _, call := range c.calls {
				close(call)
			}
			c.mutex.Unlock()
			return
		}
		call := c.calls[r.ID]
		delete(c.calls, r.ID)
		c.mutex.Unlock()
		call <- r
	}
}

// call gives a command, and decodes the answer into a pointer.
func (c *company) call(ctx context.Context, as, command string, arguments object, answer any) error {
	answered := make(chan reply, 1)
	c.mutex.Lock()
	c.last++
	line := object{"id": c.last, "as": as, "do": command}
	maps.Copy(line, arguments)
	c.calls[c.last] = answered
	text, err := json.Marshal(line)
	if err == nil {
		_, err = c.in.Write(append(text, '\n'))
	}
	err = errors.Join(err, c.ended)
	c.mutex.Unlock()
	if err != nil {
		return fmt.Errorf("%s: %s: %w", as, command, err)
	}
	select {
	case r, is := <-answered:
		switch {
		case !is:
			return fmt.Errorf("%s: %s: the program has ended", as, command)
		case r.Error != "":
			return fmt.Errorf("%s: %s", as, r.Error)
		}
		return json.Unmarshal(r.Answer, answer)
	case <-ctx.Done():
		return fmt.Errorf("%s: %s: %w", as, command, ctx.Err())
	}
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
	if err := a.call(a.ctx, a.name, command, arguments, answer); err != nil {
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
	return m, a.call(a.ctx, a.name, "say", object{"room": room, "text": text}, &m)
}

// reads waits until the client has decrypted a message, and looks at it.
func (a *actor) reads(room string, m message) message {
	a.t.Helper()
	var read message
	if err := a.call(a.ctx, a.name, "read", object{"room": room, "event": m.Event}, &read); err != nil {
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
	both.Go(func() error { return a.call(a.ctx, a.name, "verify", asked, &shown[0]) })
	both.Go(func() error { return b.call(b.ctx, b.name, "accept", nil, &shown[1]) })
	if err := both.Wait(); err != nil {
		a.t.Fatal(err)
	}
	equal(a.t, "how many numbers are to be compared", len(shown[0].SAS), 3)
	equal(a.t, "the numbers", fmt.Sprint(shown[1].SAS), fmt.Sprint(shown[0].SAS))
	for _, u := range []*actor{a, b} {
		both.Go(func() error { return u.call(u.ctx, u.name, "confirm", nil, &struct{}{}) })
	}
	if err := both.Wait(); err != nil {
		a.t.Fatal(err)
	}
}
