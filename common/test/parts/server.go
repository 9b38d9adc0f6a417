// Package parts gets and starts the real servers that tests and `make polylith` run against: Postgres and Kafka. They listen on
// loopback only, and they end with the process that started them, however that ends.
package parts

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Server is a program that runs, or can be started again where it was. Its methods are for one goroutine.
type Server struct {
	Name    string
	Command []string
	Dir     string // in which it runs
	Log     string // file to which its output is appended
	Output  io.Writer
	Signal  string // that ends it in an orderly way, such as TERM
	// Probe tells whether it answers.
	Probe func(ctx context.Context) error
	// Discard removes Dir when the server has ended.
	Discard bool

	user  identity
	guard *exec.Cmd
	hold  io.Closer // the guard's standard input: closing it ends the server
	pid   int
	ended chan struct{}
}

// The guard starts the server, tells its process id, and ends it when its own standard input closes: that is when it is told to,
// and also when the process that holds the other end is killed. Its status is the server's.
const guard = `signal=$1; discard=$2; shift 2; exec 3<&0
"$@" </dev/null 3<&- >&2 & server=$!; echo $server; exec >&-
(read -r _ <&3; kill -"$signal" $server 2>/dev/null) & reader=$!
wait $server; status=$?; kill $reader 2>/dev/null
[ -z "$discard" ] || rm -rf "$discard"; exit $status`

const (
	startWithin = 60 * time.Second
	stopWithin  = 20 * time.Second
)

// Start starts the server and waits until it answers.
func (s *Server) Start(ctx context.Context) error {
	log, err := os.OpenFile(s.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("%s: %w", s.Name, err)
	}
	discard := ""
	if s.Discard {
		discard = s.Dir
	}
	cmd := exec.Command("sh", append([]string{"-c", guard, "sh", s.Signal, discard}, s.Command...)...)
	cmd.Dir, cmd.Stderr, cmd.SysProcAttr = s.Dir, log, s.user.attributes()
	if s.Output != nil {
		cmd.Stderr = io.MultiWriter(log, s.Output)
	}
	hold, holdErr := cmd.StdinPipe()
	out, outErr := cmd.StdoutPipe()
	if err := errors.Join(holdErr, outErr, cmd.Start()); err != nil {
		return fmt.Errorf("%s: %w", s.Name, errors.Join(err, log.Close()))
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err == nil {
		s.pid, err = strconv.Atoi(strings.TrimSpace(line))
	}
	if err != nil {
		return fmt.Errorf("starting %s: %w", s.Name, errors.Join(err, hold.Close(), log.Close()))
	}
	s.guard, s.hold, s.ended = cmd, hold, make(chan struct{})
	go func(ended chan<- struct{}) {
		_ = cmd.Wait() // the status is in cmd
		_ = log.Close()
		close(ended)
	}(s.ended)
	return s.await(ctx)
}

// Ended is closed when the server that runs now has ended.
func (s *Server) Ended() <-chan struct{} { return s.ended }

// Status is the exit code of a server that has ended.
func (s *Server) Status() int {
	<-s.ended
	return s.guard.ProcessState.ExitCode()
}

// await waits until the server answers.
func (s *Server) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	for {
		err := s.Probe(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-s.ended:
			return fmt.Errorf("%s ended while it started: %s", s.Name, s.tail())
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("%s does not answer: %w: %s", s.Name, err, s.tail()), s.Stop())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// tail is the end of the server's log.
func (s *Server) tail() string {
	text, err := os.ReadFile(s.Log)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-2000):])
}

// Tell sends the server a signal that does not end it.
func (s *Server) Tell(signal syscall.Signal) error {
	if err := syscall.Kill(s.pid, signal); err != nil {
		return fmt.Errorf("telling %s %v: %w", s.Name, signal, err)
	}
	return nil
}

// Kill ends the server as a crash would.
func (s *Server) Kill() error {
	if err := syscall.Kill(s.pid, syscall.SIGKILL); err != nil {
		return fmt.Errorf("killing %s: %w", s.Name, err)
	}
	return s.Stop()
}

// Stop ends the server, if it runs, and waits for its end.
func (s *Server) Stop() error {
	if s.guard == nil {
		return nil
	}
	err := s.hold.Close()
	if errors.Is(err, os.ErrClosed) {
		err = nil
	}
	select {
	case <-s.ended:
	case <-time.After(stopWithin):
		err = errors.Join(err, fmt.Errorf("%s did not end in %v and was killed", s.Name, stopWithin), syscall.Kill(s.pid, syscall.SIGKILL))
		<-s.ended
	}
	return err
}

// Restart stops the server and starts it where it was.
func (s *Server) Restart(ctx context.Context) error {
	if err := s.Stop(); err != nil {
		return err
	}
	return s.Start(ctx)
}

// Healthy is the Probe of a component's process: it asks its internal listener.
func Healthy(base string) func(context.Context) error {
	return func(ctx context.Context) error {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/health", nil)
		if err != nil {
			return err
		}
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		if reason, err := io.ReadAll(answer.Body); err != nil || answer.StatusCode != http.StatusOK {
			return fmt.Errorf("%s/health: %s: %s", base, answer.Status, reason)
		}
		return nil
	}
}

// Cache is the folder of the repository in which downloads are kept.
func Cache() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("finding the repository: %w", err)
	}
	for top := dir; ; top = filepath.Dir(top) {
		if _, err := os.Stat(filepath.Join(top, "go.mod")); err == nil {
			cache := filepath.Join(top, ".cache")
			return cache, os.MkdirAll(cache, 0o755)
		}
		if top == filepath.Dir(top) {
			return "", fmt.Errorf("%s is in no Go module", dir)
		}
	}
}

// inNewFolder makes a folder by filling another one and renaming it, so that it is there whole or not at all.
func inNewFolder(folder string, fill func(dir string) error) error {
	if _, err := os.Stat(folder); err == nil {
		return nil
	}
	temporary, err := os.MkdirTemp(filepath.Dir(folder), filepath.Base(folder)+"-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temporary)
	if err := os.Chmod(temporary, 0o755); err != nil {
		return err
	}
	if err := fill(temporary); err != nil {
		return err
	}
	if err := os.Rename(temporary, folder); err != nil && !errors.Is(err, os.ErrExist) && !errors.Is(err, syscall.ENOTEMPTY) {
		return err // another process that was quicker is no error
	}
	return nil
}

func run(ctx context.Context, dir string, user identity, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.SysProcAttr = dir, user.attributes()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(name), err, out[max(0, len(out)-2000):])
	}
	return nil
}
