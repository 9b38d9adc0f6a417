// Package players lets tests play clients that are programs: each is of one library, and plays as many clients of it as
// it is told to, so that clients of several libraries meet in one room.
package players

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
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// Object is the arguments of a command.
type Object map[string]any

// Company is a program that plays encrypted clients of one library. Each line of its standard input is a command for
// one of them, with an id; a line on its file descriptor 3 has that id, and the answer or what failed.
type Company struct {
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

// Hire starts the program. It ends with the test, and what it printed is told if the test failed.
func Hire(t testing.TB, command ...string) *Company {
	t.Helper()
	said, says, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(command[0], command[1:]...)
	var printed bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = &printed, &printed, []*os.File{says}
	c := &Company{calls: make(map[int]chan<- reply)}
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
func (c *Company) hear(said *os.File) {
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

// Call gives a command, and decodes the answer into a pointer.
func (c *Company) Call(ctx context.Context, as, command string, arguments Object, answer any) error {
	answered := make(chan reply, 1)
	c.mutex.Lock()
	c.last++
	line := Object{"id": c.last, "as": as, "do": command}
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

// Goolm is the program that plays clients of mautrix for Go, built for the test.
func Goolm(t testing.TB) string {
	t.Helper()
	return Build(t, "github.com/matrix-org/dendrite/test/players/goolm")
}

// Build builds a program for the test that uses mautrix's encryption in Go.
func Build(t testing.TB, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), filepath.Base(name))
	build := exec.Command("go", "build", "-tags", "goolm", "-o", path, name)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return path
}
