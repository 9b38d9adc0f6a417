package input

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/common/test"
	"github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/roomserver/auth"
	"github.com/matrix-org/dendrite/roomserver/state"
	"github.com/matrix-org/dendrite/roomserver/storage"
)

// What a replica process is told.
const (
	envDatabase = "DENDRITE_TEST_REPLICA_DATABASE"
	envKey      = "DENDRITE_TEST_REPLICA_KEY"
	envRoom     = "DENDRITE_TEST_REPLICA_ROOM"
	envRequests = "DENDRITE_TEST_REPLICA_REQUESTS" // prefix of its request keys
)

func openReplica(ctx context.Context, url, key string) (*Input, *eventlog.Topic, *sqlutil.DB, error) {
	db, err := sqlutil.Open(ctx, sqlutil.Options{ConnectionString: url, MaxOpenConns: 5}, sqlutil.Deps{})
	if err != nil {
		return nil, nil, nil, err
	}
	s, err := storage.New(ctx, db)
	if err != nil {
		return nil, nil, nil, err
	}
	log, err := eventlog.New(ctx, db, storage.Component, eventlog.Options{})
	if err != nil {
		return nil, nil, nil, err
	}
	topic, err := log.Topic(ctx, api.Topic, s.Log())
	if err != nil {
		return nil, nil, nil, err
	}
	reader, err := state.NewReader(s, false)
	if err != nil {
		return nil, nil, nil, err
	}
	seed, err := hex.DecodeString(key)
	if err != nil {
		return nil, nil, nil, err
	}
	in, err := New(Deps{Storage: s, Reader: reader, Topic: topic, Signer: pdu.Signer{ServerName: "here", KeyID: "ed25519:1", PrivateKey: ed25519.NewKeyFromSeed(seed)}})
	return in, topic, db, err
}

// TestReplicaProcess is not a test of its own: it is what a replica runs, in a process that can be killed. Four writers send
// messages, and now and then a topic, and print the request key and event id of each answer.
func TestReplicaProcess(t *testing.T) {
	url := os.Getenv(envDatabase)
	if url == "" {
		t.SkipNow() // only TestThreeReplicasOnOneRoomUnderSIGKILL runs it
	}
	in, _, _, err := openReplica(t.Context(), url, os.Getenv(envKey))
	must(t, err)
	var print sync.Mutex
	var all sync.WaitGroup
	for writer := range 4 {
		all.Go(func() {
			for n := 0; ; n++ {
				key := fmt.Sprintf("%s-%d-%d", os.Getenv(envRequests), writer, n)
				p := proto(alice, "m.room.message", nil, fmt.Sprintf(`{"body":%q}`, key))
				if n%10 == 9 {
					p = proto(alice, "m.room.topic", str(""), fmt.Sprintf(`{"topic":%q}`, key))
				}
				eventID, err := in.Local(context.Background(), id.RoomID(os.Getenv(envRoom)), api.RequestKey(key),
					func(context.Context, View) ([]Proto, id.EventID, error) { return []Proto{p}, "", nil })
				print.Lock()
				if err != nil {
					fmt.Println("FAILED", key, strings.ReplaceAll(err.Error(), "\n", " "))
				} else {
					fmt.Println("ACK", key, eventID)
				}
				print.Unlock()
			}
		})
	}
	all.Wait()
}

func TestThreeReplicasOnOneRoomUnderSIGKILL(t *testing.T) {
	url := test.Postgres(t)
	dice := rand.New(rand.NewPCG(test.Seed(t), 1))
	key := hex.EncodeToString(make([]byte, ed25519.SeedSize))
	in, topic, db, err := openReplica(t.Context(), url, key)
	must(t, err)
	defer func() { must(t, db.Close()) }()
	w := &world{t: t, in: in, topic: topic}
	roomID := w.room("11")

	var mu sync.Mutex
	acknowledged := map[string]id.EventID{} // by request key
	var failures []string
	counted := make(chan struct{}, 1)
	start := func(name string) *exec.Cmd {
		c := exec.Command(os.Args[0], "-test.run=^TestReplicaProcess$", "-test.timeout=120s")
		c.Env = append(os.Environ(), envDatabase+"="+url, envKey+"="+key, envRoom+"="+string(roomID), envRequests+"="+name)
		out, err := c.StdoutPipe()
		must(t, err)
		must(t, c.Start())
		go func() {
			lines := bufio.NewScanner(out)
			for lines.Scan() {
				fields := strings.Fields(lines.Text())
				mu.Lock()
				switch {
				case len(fields) == 3 && fields[0] == "ACK":
					acknowledged[fields[1]] = id.EventID(fields[2])
				case len(fields) > 0 && fields[0] == "FAILED":
					failures = append(failures, lines.Text())
				}
				mu.Unlock()
				select {
				case counted <- struct{}{}:
				default:
				}
			}
		}()
		return c
	}
	replicas := make([]*exec.Cmd, 3)
	for i := range replicas {
		replicas[i] = start(fmt.Sprintf("r%d", i))
	}
	kill := func(c *exec.Cmd) {
		must(t, c.Process.Kill()) // SIGKILL
		_ = c.Wait()              // it was killed: that is its status
	}
	defer func() {
		for _, c := range replicas {
			kill(c)
		}
	}()
	until := func(n int) {
		deadline := time.After(60 * time.Second)
		for {
			mu.Lock()
			have := len(acknowledged)
			mu.Unlock()
			if have >= n {
				return
			}
			select {
			case <-counted:
			case <-deadline:
				t.Fatalf("%d events were acknowledged in time, want %d", have, n)
			}
		}
	}
	until(100)
	for round := range 6 {
		victim := dice.IntN(len(replicas))
		kill(replicas[victim])
		replicas[victim] = start(fmt.Sprintf("r%d-%d", victim, round))
		mu.Lock()
		n := len(acknowledged)
		mu.Unlock()
		until(n + 100)
	}
	for i := range replicas {
		kill(replicas[i])
	}
	replicas = nil

	log := w.log(roomID)
	chained(t, log)
	mu.Lock()
	defer mu.Unlock()
	if len(failures) > 0 {
		t.Errorf("%d sends failed, the first: %s", len(failures), failures[0])
	}
	inLog := map[id.EventID]int{}
	stateNow := auth.Map{}
	for i, o := range log {
		inLog[o.Event.ID()]++
		if i > 0 {
			if parents := o.Event.PrevEvents(); len(parents) != 1 || parents[0] != log[i-1].Event.ID() {
				t.Fatalf("event %d has the parents %v, want %s", i, parents, log[i-1].Event.ID())
			}
		}
		if err := auth.Check(o.Event, stateNow); err != nil {
			t.Fatalf("event %d is not allowed by the state before it: %v", i, err)
		}
		if k, is := keyOf(o.Event); is {
			stateNow[k] = o.Event
		}
		if !o.Event.VerifySignature("here", "ed25519:1", in.Signer.PrivateKey.Public().(ed25519.PublicKey)) {
			t.Fatalf("event %d has no valid signature", i)
		}
	}
	for key, eventID := range acknowledged {
		if inLog[eventID] != 1 {
			t.Errorf("the event %s of request %s is %d times in the log", eventID, key, inLog[eventID])
		}
	}
	t.Logf("%d events, %d of them acknowledged, through 6 kills", len(log), len(acknowledged))

	room, err := in.Storage.Room(t.Context(), roomID)
	must(t, err)
	nids, err := in.Reader.Entries(t.Context(), room.NID, room.Root, 0)
	must(t, err)
	events, err := in.Reader.Events(t.Context(), nids)
	must(t, err)
	if len(events) != len(stateNow) {
		t.Errorf("the current state has %d entries, want %d", len(events), len(stateNow))
	}
	for _, e := range events {
		if k, _ := keyOf(e.PDU); stateNow[k] == nil || stateNow[k].ID() != e.PDU.ID() {
			t.Errorf("the current state has %s for %v", e.PDU.ID(), k)
		}
	}
}
