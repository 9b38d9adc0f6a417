package bridges

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// process is a program that runs beside the test, until the test's end.
type process struct {
	cmd   *exec.Cmd
	log   string
	ended chan struct{} // closed when it has ended
}

// begin starts a program. What it writes is in a file, which is shown when the test fails.
func begin(t *testing.T, command ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(command[0], command[1:]...), ended: make(chan struct{}),
		log: filepath.Join(t.TempDir(), filepath.Base(command[0])+".log")}
	log, err := os.Create(p.log)
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if err := errors.Join(p.cmd.Start(), log.Close()); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		_ = p.cmd.Wait() // it fails where it is told to end
	}()
	t.Cleanup(func() {
		p.end()
		if text, err := os.ReadFile(p.log); t.Failed() && err == nil {
			t.Logf("%s: %s", filepath.Base(command[0]), text[max(0, len(text)-shown):])
		}
	})
	return p
}

// shown is how many bytes of what a program wrote are shown when a test fails.
const shown = 20000

// end asks the program to end, and makes it end after a while.
func (p *process) end() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself
	select {
	case <-p.ended:
	case <-time.After(10 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
}

// says waits until the program has written a line that begins so.
func (p *process) says(t *testing.T, ctx context.Context, text string) {
	t.Helper()
	for over := false; ; {
		said, err := os.ReadFile(p.log)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains("\n"+string(said), "\n"+text) {
			return
		}
		if over {
			t.Fatalf("the program has ended and never said %q", text)
		}
		select {
		case <-p.ended:
			over = true // and it may have said so before
		case <-ctx.Done():
			t.Fatalf("the program never says %q", text)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// portOf is the port of an address of IPv4.
func portOf(address string) string { return address[strings.LastIndexByte(address, ':')+1:] }

// awaitListener waits until something accepts connections.
func awaitListener(t *testing.T, ctx context.Context, address string) {
	t.Helper()
	for {
		conn, err := net.DialTimeout("tcp", address, time.Second)
		if err == nil {
			_ = conn.Close() // it was opened to see that it can be
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("nothing listens at %s: %v", address, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// secret is a token of a registration.
func secret() string { return rand.Text() + rand.Text() }
