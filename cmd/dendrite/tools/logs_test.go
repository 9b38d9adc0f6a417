package tools

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/matrix-org/dendrite/cmd/dendrite/place"
	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// logServer is a data folder in which syncapi follows a log of roomserver's until stop is called, and cannot apply what bad says.
type logServer struct {
	dir string
	db  *sqlutil.DB
	bad func(*eventlog.Record) bool
}

func newLogServer(t *testing.T) *logServer {
	t.Helper()
	s := &logServer{dir: t.TempDir(), bad: func(*eventlog.Record) bool { return false }}
	if err := place.GenerateConfig(place.Generated{ServerName: "example.org", Dir: s.dir}); err != nil {
		t.Fatal(err)
	}
	cfg, err := place.Place{DataDir: s.dir}.Load("")
	if err != nil {
		t.Fatal(err)
	}
	if s.db, err = place.OpenDatabase(t.Context(), cfg, "roomserver", toolWait, sqlutil.Deps{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.db.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// send appends records of these keys, and has the consumer apply or park them.
func (s *logServer) send(t *testing.T, keys ...string) {
	t.Helper()
	log, err := eventlog.New(t.Context(), s.db, "roomserver", eventlog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	topic, err := log.Topic(t.Context(), "room", nil)
	if err != nil {
		t.Fatal(err)
	}
	err = s.db.Write(t.Context(), "append", func(ctx context.Context, tx *sqlutil.Tx) error {
		for _, key := range keys {
			topic.Append(ctx, tx, key, "thing", key)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	consumer, err := eventlog.NewConsumer(t.Context(), eventlog.ConsumerConfig{Name: "room", Topic: "room", Component: "syncapi", DB: s.db,
		Source: eventlog.Source{Read: topic.Read, Heads: topic.Heads},
		Handle: func(_ context.Context, records []eventlog.Record) (eventlog.Apply, error) {
			for i := range records {
				if s.bad(&records[i]) {
					return nil, eventlog.Permanent(errors.New("it makes no sense\nat all"))
				}
			}
			return nil, nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	heads, err := topic.Heads(t.Context(), eventlog.HeadsRequest{Topic: "room"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	following, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- eventlog.NewEmbedded().Follow(following, consumer) }()
	err = consumer.WaitFor(ctx, heads.Heads)
	stop()
	if err = errors.Join(err, <-done); err != nil {
		t.Fatal(err)
	}
}

// run runs a command on the data folder, and expects words in what it says.
func (s *logServer) run(t *testing.T, words string, args ...string) {
	t.Helper()
	out, err := command(t, append(args, "--data-dir", s.dir)...)
	if err != nil {
		out += err.Error()
	}
	if !strings.Contains(strings.Join(strings.Fields(out), " "), words) {
		t.Errorf("%v says\n%s\nand not %q", args, out, words)
	}
}

func TestConsumersAreListedAndForgotten(t *testing.T) {
	s := newLogServer(t)
	s.send(t, "a", "b", "a")
	s.run(t, "syncapi syncapi.room room 0 2", "consumers", "list")
	s.run(t, "there is no consumer syncapi.rooms", "consumers", "forget", "syncapi.rooms")
	s.run(t, "Forgot syncapi.room.", "consumers", "forget", "syncapi.room")
	s.run(t, "there is no consumer syncapi.room:", "consumers", "forget", "syncapi.room")
}

func TestDeadLettersAreListedRetriedAndDropped(t *testing.T) {
	s := newLogServer(t)
	s.bad = func(r *eventlog.Record) bool { return r.Key != "a" }
	s.send(t, "a", "b", "c", "b")
	s.run(t, "syncapi syncapi.room b 2 ", "dead-letters", "list")
	s.run(t, "it makes no sense syncapi", "dead-letters", "list")
	s.run(t, "Would delete 2 records of b for syncapi.room", "dead-letters", "drop", "b")
	s.run(t, "name the keys, or give --all", "dead-letters", "drop")
	s.run(t, "name the keys, or give --all", "dead-letters", "retry", "b", "--all")
	s.run(t, "nothing of x, a is put aside", "dead-letters", "retry", "x", "a")
	s.run(t, "nothing of b is put aside", "dead-letters", "retry", "b", "--consumer", "syncapi.other")
	s.run(t, "syncapi.room tries the 2 records of b again", "dead-letters", "retry", "b", "--consumer", "syncapi.room")
	s.run(t, "Deleted 2 records of b", "dead-letters", "drop", "--yes", "b")
	s.run(t, "syncapi syncapi.room c 1 ", "dead-letters", "list")
	s.bad = func(r *eventlog.Record) bool { return false }
	s.send(t, "b")
	s.run(t, "nothing of c, b is put aside", "dead-letters", "retry", "c", "b")
}

func TestLogToolsMakeNoServer(t *testing.T) {
	s := &logServer{dir: filepath.Join(t.TempDir(), "nowhere")}
	s.run(t, "there is no server in", "consumers", "list")
}
