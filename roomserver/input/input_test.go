package input

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"

	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/roomserver/auth"
	"github.com/matrix-org/dendrite/roomserver/state"
	"github.com/matrix-org/dendrite/roomserver/storage"
)

// world is an Input on a database of its own, and another server that takes part in its rooms.
type world struct {
	t     testing.TB
	in    *Input
	topic *eventlog.Topic
	other pdu.Signer
	rooms int
}

const (
	alice = id.UserID("@alice:here")
	bob   = id.UserID("@bob:there")
)

func signer(t testing.TB, name id.ServerName) pdu.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return pdu.Signer{ServerName: name, KeyID: "ed25519:1", PrivateKey: key}
}

// keys knows the keys of both servers.
type keys map[id.ServerName]pdu.Signer

func (k keys) VerifyPDU(_ context.Context, e *pdu.Event) error {
	for _, server := range e.SignaturesNeeded() {
		s, known := k[server]
		if !known || !e.VerifySignature(server, s.KeyID, s.PrivateKey.Public().(ed25519.PublicKey)) {
			return &InvalidSignature{server}
		}
	}
	return nil
}

func newWorld(t testing.TB) *world {
	t.Helper()
	return newWorldOn(t, "file:"+filepath.Join(t.TempDir(), "rooms.db"))
}

func newWorldOn(t testing.TB, connection string) *world {
	t.Helper()
	db, err := sqlutil.Open(t.Context(), sqlutil.Options{ConnectionString: connection}, sqlutil.Deps{})
	must(t, err)
	t.Cleanup(func() { must(t, db.Close()) })
	s, err := storage.New(t.Context(), db)
	must(t, err)
	log, err := eventlog.New(t.Context(), db, storage.Component, eventlog.Options{Sole: true})
	must(t, err)
	topic, err := log.Topic(t.Context(), api.Topic, s.Log())
	must(t, err)
	reader, err := state.NewReader(s, true)
	must(t, err)
	here, there := signer(t, "here"), signer(t, "there")
	in, err := New(Deps{Storage: s, Reader: reader, Topic: topic, Signer: here, Keys: keys{"here": here, "there": there}})
	must(t, err)
	t.Cleanup(in.Wait)
	return &world{t: t, in: in, topic: topic, other: there}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func proto(sender id.UserID, eventType string, stateKey *string, content string) Proto {
	return Proto{Proto: pdu.Proto{Type: eventType, StateKey: stateKey, Sender: sender, Content: json.RawMessage(content)}}
}

func str(s string) *string { return &s }

// room makes a public room of alice.
func (w *world) room(version id.RoomVersion) id.RoomID {
	w.t.Helper()
	create := fmt.Sprintf(`{"room_version":%q,"creator":%q}`, version, alice)
	levels := fmt.Sprintf(`{"users":{%q:100}}`, alice)
	w.rooms++
	roomID := id.RoomID(fmt.Sprintf("!room%d:here", w.rooms))
	if version == "12" {
		create, levels, roomID = `{"room_version":"12"}`, `{}`, ""
	}
	roomID, err := w.in.Create(w.t.Context(), version, roomID, "", []Proto{
		proto(alice, pdu.TypeCreate, str(""), create),
		proto(alice, pdu.TypeMember, str(string(alice)), `{"membership":"join"}`),
		proto(alice, pdu.TypePowerLevels, str(""), levels),
		proto(alice, pdu.TypeJoinRules, str(""), `{"join_rule":"public"}`),
	}, func(context.Context, *sqlutil.Tx, *storage.Room) error { return nil })
	must(w.t, err)
	return roomID
}

func (w *world) say(roomID id.RoomID, key api.RequestKey, body string) (id.EventID, error) {
	return w.in.Local(w.t.Context(), roomID, key, func(context.Context, View) ([]Proto, id.EventID, error) {
		return []Proto{proto(alice, "m.room.message", nil, fmt.Sprintf(`{"body":%q}`, body))}, "", nil
	})
}

// log reads the whole log of a room.
func (w *world) log(roomID id.RoomID) []*api.OutputEvent {
	w.t.Helper()
	var all []*api.OutputEvent
	heads, err := w.topic.Heads(w.t.Context(), eventlog.HeadsRequest{Topic: api.Topic})
	must(w.t, err)
	for {
		answer, err := w.topic.Read(w.t.Context(), eventlog.ReadRequest{Topic: api.Topic, Partition: eventlog.Partition(string(roomID)), From: int64(len(all)) + 1})
		must(w.t, err)
		for i := range answer.Records {
			o, err := eventlog.Decode[api.OutputEvent](&answer.Records[i])
			must(w.t, err)
			all = append(all, o)
		}
		if int64(len(all)) >= heads.Heads[eventlog.Partition(string(roomID))] {
			return all
		}
	}
}

// chained fails unless each root follows from the one before, and order keys grow by one.
func chained(t *testing.T, log []*api.OutputEvent) {
	t.Helper()
	root := api.Root{}
	for i, o := range log {
		if o.RootBefore != root {
			t.Fatalf("record %d begins with root %s, the one before ended with %s", i, o.RootBefore, root)
		}
		if o.Order != (api.OrderKey{Segment: 1, Index: int64(i) + 1}) {
			t.Fatalf("record %d has order %v", i, o.Order)
		}
		root = o.RootAfter
	}
}

func TestLocalEventsFormALine(t *testing.T) {
	for _, version := range []id.RoomVersion{"1", "2", "6", "10", "11", "12"} {
		t.Run("version "+string(version), func(t *testing.T) {
			w := newWorld(t)
			roomID := w.room(version)
			var all sync.WaitGroup
			for i := range 60 {
				all.Go(func() {
					if _, err := w.say(roomID, api.RequestKey(fmt.Sprint("key", i%40)), "hello"); err != nil {
						t.Error(err)
					}
				})
			}
			all.Wait()
			log := w.log(roomID)
			if len(log) != 4+40 {
				t.Fatalf("the log has %d events, want 44: a request key makes one", len(log))
			}
			chained(t, log)
			for i, o := range log[1:] {
				if parents := o.Event.PrevEvents(); len(parents) != 1 || parents[0] != log[i].Event.ID() {
					t.Fatalf("event %d has the parents %v", i+1, parents)
				}
			}
		})
	}
}

func TestARepeatedRequestGetsTheFirstAnswer(t *testing.T) {
	w := newWorld(t)
	roomID := w.room("11")
	first, err := w.say(roomID, "key", "hello")
	must(t, err)
	w.in.done.Purge() // as after a restart
	again, err := w.say(roomID, "key", "hello")
	must(t, err)
	if first != again {
		t.Fatalf("got %s, then %s", first, again)
	}
	_, err = w.in.Local(t.Context(), roomID, "", func(context.Context, View) ([]Proto, id.EventID, error) {
		return []Proto{proto(alice, pdu.TypeMember, str(string(alice)), `{"membership":"leave"}`)}, "", nil
	})
	must(t, err)
	w.in.done.Purge()
	if again, err = w.say(roomID, "key", "hello"); err != nil || again != first {
		t.Fatalf("after leaving: %s, %v", again, err)
	}
	if _, err = w.say(roomID, "another key", "hello"); !mxerr.Is(err, "M_FORBIDDEN") {
		t.Fatalf("a user who has left may send: %v", err)
	}
}

func TestAnInputThatFailsLeavesNoTrace(t *testing.T) {
	w := newWorld(t)
	roomID := w.room("11")
	before := w.log(roomID)
	_, err := w.in.Local(t.Context(), roomID, "", func(context.Context, View) ([]Proto, id.EventID, error) {
		return []Proto{
			proto(alice, "m.room.name", str(""), `{"name":"gone"}`),
			proto("@mallory:here", "m.room.name", str(""), `{"name":"forbidden"}`),
		}, "", nil
	})
	if _, refused := errors.AsType[*auth.Error](err); !refused {
		t.Fatalf("got %v", err)
	}
	if _, err := w.say(roomID, "", "after"); err != nil {
		t.Fatal(err)
	}
	log := w.log(roomID)
	if len(log) != len(before)+1 {
		t.Fatalf("the log has %d events, want %d", len(log), len(before)+1)
	}
	chained(t, log)
}

// build makes an event of the other server.
func (w *world) build(roomID id.RoomID, log []*api.OutputEvent, parents []id.EventID, p Proto, authTypes ...auth.Key) *pdu.Event {
	w.t.Helper()
	p.RoomID, p.PrevEvents, p.Depth, p.OriginServerTS = roomID, parents, 100, 1000
	for _, k := range authTypes {
		for i := len(log) - 1; i >= 0; i-- {
			if log[i].Event.Is(k.Type, k.StateKey) {
				p.AuthEvents = append(p.AuthEvents, log[i].Event.ID())
				break
			}
		}
	}
	e, err := pdu.Build(log[0].RoomVersion, p.Proto, w.other)
	must(w.t, err)
	return e
}

func (w *world) input(roomID id.RoomID, events ...*pdu.Event) []string {
	w.t.Helper()
	req := api.InputPDUsRequest{Origin: "there", RoomID: roomID}
	for _, e := range events {
		req.PDUs = append(req.PDUs, e.JSON())
	}
	res, err := w.in.InputPDUs(w.t.Context(), req)
	must(w.t, err)
	var outcomes []string
	for _, r := range res.Results {
		outcomes = append(outcomes, r.Outcome)
	}
	return outcomes
}

var (
	create = auth.Key{Type: pdu.TypeCreate}
	levels = auth.Key{Type: pdu.TypePowerLevels}
	rules  = auth.Key{Type: pdu.TypeJoinRules}
)

func TestAForkOfTheRoomIsResolved(t *testing.T) {
	w := newWorld(t)
	roomID := w.room("11")
	log := w.log(roomID)
	fork := log[len(log)-1].Event.ID()
	_, err := w.say(roomID, "", "one side")
	must(t, err)
	joined := w.build(roomID, log, []id.EventID{fork}, proto(bob, pdu.TypeMember, str(string(bob)), `{"membership":"join"}`), create, levels, rules)
	if got := w.input(roomID, joined, joined); got[0] != api.OutcomeAccepted || got[1] != api.OutcomeAccepted {
		t.Fatalf("got %v", got)
	}
	room, err := w.in.Reader.Room(t.Context(), roomID)
	must(t, err)
	if len(room.Extremities) != 2 || room.Joined != 2 {
		t.Fatalf("got %d extremities and %d members, want 2 and 2", len(room.Extremities), room.Joined)
	}
	merge, err := w.say(roomID, "", "both sides")
	must(t, err)
	log = w.log(roomID)
	chained(t, log)
	last := log[len(log)-1]
	if last.Event.ID() != merge || len(last.Event.PrevEvents()) != 2 {
		t.Fatalf("the event after the fork has the parents %v", last.Event.PrevEvents())
	}
}

func TestEventsWaitForTheirAncestors(t *testing.T) {
	w := newWorld(t)
	roomID := w.room("11")
	log := w.log(roomID)
	joined := w.build(roomID, log, []id.EventID{log[len(log)-1].Event.ID()}, proto(bob, pdu.TypeMember, str(string(bob)), `{"membership":"join"}`), create, levels, rules)
	withJoin := append(log, &api.OutputEvent{Event: joined})
	member := auth.Key{Type: pdu.TypeMember, StateKey: string(bob)}
	first := w.build(roomID, withJoin, []id.EventID{joined.ID()}, proto(bob, "m.room.message", nil, `{"body":"1"}`), create, levels, member)
	second := w.build(roomID, withJoin, []id.EventID{first.ID()}, proto(bob, "m.room.message", nil, `{"body":"2"}`), create, levels, member)
	if got := w.input(roomID, second); got[0] != api.OutcomeStaged {
		t.Fatalf("got %v", got)
	}
	if got := w.input(roomID, first); got[0] != api.OutcomeStaged {
		t.Fatalf("got %v", got)
	}
	if got := w.input(roomID, joined); got[0] != api.OutcomeAccepted {
		t.Fatalf("got %v", got)
	}
	after := w.log(roomID)
	chained(t, after)
	if n := len(after); n != len(log)+3 || after[n-1].Event.ID() != second.ID() {
		t.Fatalf("the log has %d events", n)
	}
	waiting, err := w.in.Storage.WaitingPDUs(t.Context(), roomID)
	must(t, err)
	if len(waiting) != 0 {
		t.Fatalf("%d events still wait", len(waiting))
	}
}

func TestTheNumberedChecks(t *testing.T) {
	w := newWorld(t)
	roomID := w.room("11")
	log := w.log(roomID)
	tip := log[len(log)-1].Event.ID()
	member := auth.Key{Type: pdu.TypeMember, StateKey: string(bob)}
	joined := w.build(roomID, log, []id.EventID{tip}, proto(bob, pdu.TypeMember, str(string(bob)), `{"membership":"join"}`), create, levels, rules)

	forged := w.other
	forged.PrivateKey = signer(t, "there").PrivateKey
	genuine := w.other
	w.other = forged
	unsigned := w.build(roomID, log, []id.EventID{tip}, proto(bob, pdu.TypeMember, str(string(bob)), `{"membership":"join"}`), create, levels, rules)
	w.other = genuine
	if got := w.input(roomID, unsigned); got[0] != api.OutcomeInvalid {
		t.Fatalf("step 2: %v", got)
	}
	noAuth := w.build(roomID, log, []id.EventID{tip}, proto(bob, pdu.TypeMember, str(string(bob)), `{"membership":"join"}`), create, levels)
	if got := w.input(roomID, noAuth); got[0] != api.OutcomeRejected {
		t.Fatalf("step 4: %v", got)
	}
	if got := w.input(roomID, joined); got[0] != api.OutcomeAccepted {
		t.Fatalf("a join: %v", got)
	}
	// Bob is banned; a message that he claims to have sent before is allowed where it was sent, and not now.
	_, err := w.in.Local(t.Context(), roomID, "", func(context.Context, View) ([]Proto, id.EventID, error) {
		return []Proto{proto(alice, pdu.TypeMember, str(string(bob)), `{"membership":"ban"}`)}, "", nil
	})
	must(t, err)
	withJoin := append(log, &api.OutputEvent{Event: joined})
	late := w.build(roomID, withJoin, []id.EventID{joined.ID()}, proto(bob, "m.room.message", nil, `{"body":"late"}`), create, levels, member)
	if got := w.input(roomID, late); got[0] != api.OutcomeSoftFailed {
		t.Fatalf("step 6: %v", got)
	}
	room, err := w.in.Reader.Room(t.Context(), roomID)
	must(t, err)
	if len(room.Extremities) != 1 || room.Joined != 1 {
		t.Fatalf("got %d extremities and %d members", len(room.Extremities), room.Joined)
	}
	// Its children are not allowed by the state before them either, where they come after the ban.
	tip = room.Extremities[0].EventID
	after := w.build(roomID, withJoin, []id.EventID{tip}, proto(bob, "m.room.message", nil, `{"body":"after"}`), create, levels, member)
	if got := w.input(roomID, after); got[0] != api.OutcomeRejected {
		t.Fatalf("step 5: %v", got)
	}
	chained(t, w.log(roomID))
}

func TestARedactionBeforeItsTarget(t *testing.T) {
	w := newWorld(t)
	roomID := w.room("11")
	log := w.log(roomID)
	joined := w.build(roomID, log, []id.EventID{log[len(log)-1].Event.ID()}, proto(bob, pdu.TypeMember, str(string(bob)), `{"membership":"join"}`), create, levels, rules)
	withJoin := append(log, &api.OutputEvent{Event: joined})
	member := auth.Key{Type: pdu.TypeMember, StateKey: string(bob)}
	secret := w.build(roomID, withJoin, []id.EventID{joined.ID()}, proto(bob, "m.room.message", nil, `{"body":"secret"}`), create, levels, member)
	p := proto(bob, pdu.TypeRedaction, nil, `{}`)
	p.Redacts = secret.ID()
	r := w.build(roomID, withJoin, []id.EventID{joined.ID()}, p, create, levels, member)
	if got := w.input(roomID, joined, r, secret); fmt.Sprint(got) != "[accepted accepted accepted]" {
		t.Fatalf("got %v", got)
	}
	found, err := w.in.Storage.EventsByID(t.Context(), []id.EventID{secret.ID()})
	must(t, err)
	if string(found[0].PDU.Content()) != "{}" || found[0].RedactedBy != r.ID() {
		t.Fatalf("got %s, redacted by %q", found[0].PDU.Content(), found[0].RedactedBy)
	}
}

func rawOf(events ...*pdu.Event) (all []json.RawMessage) {
	for _, e := range events {
		all = append(all, e.JSON())
	}
	return all
}

func nothingElse(context.Context, *sqlutil.Tx, *storage.Room) error { return nil }
