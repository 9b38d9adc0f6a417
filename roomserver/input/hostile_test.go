package input

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/common/test"
	"github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/roomserver/auth"
)

var memberOfBob = auth.Key{Type: pdu.TypeMember, StateKey: string(bob)}

// withBob makes a room that bob of the other server has joined, and returns its log.
func (w *world) withBob(version id.RoomVersion) (id.RoomID, []*api.OutputEvent) {
	w.t.Helper()
	roomID := w.room(version)
	log := w.log(roomID)
	keys := []auth.Key{levels, rules}
	if version != "12" {
		keys = append(keys, create)
	}
	joined := w.build(roomID, log, w.tips(roomID), proto(bob, pdu.TypeMember, str(string(bob)), `{"membership":"join"}`), keys...)
	w.expect(roomID, api.OutcomeAccepted, joined)
	return roomID, w.log(roomID)
}

func (w *world) tips(roomID id.RoomID) (ids []id.EventID) {
	w.t.Helper()
	room, err := w.in.Reader.Room(w.t.Context(), roomID)
	must(w.t, err)
	for _, x := range room.Extremities {
		ids = append(ids, x.EventID)
	}
	return ids
}

// expect puts events in, one by one.
func (w *world) expect(roomID id.RoomID, outcome string, events ...*pdu.Event) {
	w.t.Helper()
	for _, e := range events {
		res, err := w.in.InputPDUs(w.t.Context(), api.InputPDUsRequest{Origin: "there", RoomID: roomID, PDUs: rawOf(e)})
		must(w.t, err)
		if got := res.Results[0]; got.Outcome != outcome {
			w.t.Fatalf("%s: %s (%s), want %s", e.Type(), got.Outcome, got.Error, outcome)
		}
	}
}

func message(body string) Proto {
	return proto(bob, "m.room.message", nil, fmt.Sprintf(`{"body":%q}`, body))
}

func TestReferencesToAnotherRoomAreRejected(t *testing.T) {
	w := newWorld(t)
	_, other := w.withBob("11")
	roomID, log := w.withBob("11")
	tip := w.tips(roomID)
	elsewhere := other[len(other)-1].Event.ID()

	p := message("auth event of another room")
	p.AuthEvents = []id.EventID{elsewhere}
	foreignAuth := w.build(roomID, log, tip, p, create, levels)
	foreignParent := w.build(roomID, log, append(slices.Clone(tip), elsewhere), message("parent in another room"), create, levels, memberOfBob)
	onlyForeign := w.build(roomID, log, []id.EventID{elsewhere}, message("all parents in another room"), create, levels, memberOfBob)
	none := w.build(roomID, log, nil, message("no parent"), create, levels, memberOfBob)
	good := w.build(roomID, log, append(slices.Clone(tip), tip...), message("a parent twice"), create, levels, memberOfBob)
	got := w.input(roomID, foreignAuth, foreignParent, onlyForeign, none, good)
	if fmt.Sprint(got) != "[rejected rejected rejected rejected accepted]" {
		t.Fatal(got)
	}
	if tips := w.tips(roomID); len(tips) != 1 || tips[0] != good.ID() {
		t.Fatalf("the forward extremities are %v", tips)
	}
	chained(t, w.log(roomID))
}

func TestARoomHasOneCreateEvent(t *testing.T) {
	w := newWorld(t)
	here := w.in.Signer
	w.other, w.in.Signer = here, here
	roomID := w.room("11")
	log := w.log(roomID)
	second := w.build(roomID, log, nil, proto(alice, pdu.TypeCreate, str(""), `{"room_version":"11","m.federate":false}`))
	w.expect(roomID, api.OutcomeRejected, second)
}

func TestARejectedEventMayBeAParent(t *testing.T) {
	w := newWorld(t)
	roomID, log := w.withBob("11")
	tip := w.tips(roomID)
	bad := w.build(roomID, log, tip, message("lacks an auth event"), create, levels)
	w.expect(roomID, api.OutcomeRejected, bad)
	good := w.build(roomID, log, []id.EventID{bad.ID()}, message("on top of it"), create, levels, memberOfBob)
	w.expect(roomID, api.OutcomeAccepted, good)
	if tips := w.tips(roomID); len(tips) != 1 || tips[0] != good.ID() {
		t.Fatalf("the forward extremities are %v, want the newest event alone", tips)
	}
}

func TestAPDUThatIsSentTwiceIsStagedOnce(t *testing.T) {
	for name, connection := range map[string]string{"sqlite": "file:" + filepath.Join(t.TempDir(), "rooms.db"), "postgres": test.Postgres(t)} {
		t.Run(name, func(t *testing.T) {
			w := newWorldOn(t, connection)
			roomID, log := w.withBob("11")
			missing := w.build(roomID, log, w.tips(roomID), message("missing"), create, levels, memberOfBob)
			late := w.build(roomID, log, []id.EventID{missing.ID()}, message("late"), create, levels, memberOfBob)
			if got := w.input(roomID, late, late); fmt.Sprint(got) != "[staged staged]" {
				t.Fatal(got)
			}
			w.expect(roomID, api.OutcomeStaged, late)
			w.expect(roomID, api.OutcomeAccepted, missing, late)
			if n := len(w.log(roomID)); n != len(log)+2 {
				t.Fatalf("the log has %d events, want %d", n, len(log)+2)
			}
			waiting, err := w.in.Storage.WaitingPDUs(t.Context(), roomID)
			must(t, err)
			if len(waiting) != 0 {
				t.Fatalf("%d events still wait", len(waiting))
			}
		})
	}
}

func TestStagedEventsAreBoundedAndTakenInParts(t *testing.T) {
	w := newWorld(t)
	roomID, log := w.withBob("11")
	missing := w.build(roomID, log, w.tips(roomID), message("missing"), create, levels, memberOfBob)
	var never, later []*pdu.Event
	for i := range maxStaged {
		p := message(fmt.Sprint("never ", i))
		never = append(never, w.build(roomID, log, []id.EventID{"$never"}, p, create, levels, memberOfBob))
	}
	parent := missing.ID()
	for i := range stagedAtOnce + 20 {
		e := w.build(roomID, log, []id.EventID{parent}, message(fmt.Sprint("later ", i)), create, levels, memberOfBob)
		later, parent = append(later, e), e.ID()
	}
	w.input(roomID, never...)
	w.input(roomID, later...)
	waiting, err := w.in.Storage.WaitingPDUs(t.Context(), roomID)
	must(t, err)
	if len(waiting) != maxStaged {
		t.Fatalf("%d events wait, want %d", len(waiting), maxStaged)
	}
	w.expect(roomID, api.OutcomeAccepted, missing)
	after := w.log(roomID)
	if n := len(after) - len(log); n != 1+len(later) || after[len(after)-1].Event.ID() != parent {
		t.Fatalf("%d events came, want %d", n, 1+len(later))
	}
}

func TestAnEventOfAnotherBodyDoesNotReplaceAnOutlier(t *testing.T) {
	w := newWorld(t)
	roomID, log := w.withBob("2")
	tip := w.tips(roomID)
	outlier := w.build(roomID, log, tip, message("first"), create, levels, memberOfBob)
	r := &received{origin: "there", outlier: true}
	room, err := w.in.Reader.Room(t.Context(), roomID)
	must(t, err)
	must(t, w.in.receive(t.Context(), room, r, outlier.JSON()))
	must(t, w.in.take(t.Context(), roomID, []*received{r}))
	fake := *r
	fake.outlier, fake.result = false, api.InputPDUResult{}
	other := w.build(roomID, log, tip, message("second"), create, levels, memberOfBob)
	if fake.event, err = pdu.ParseTrusted("2", outlier.ID(), other.JSON()); err != nil {
		t.Fatal(err)
	}
	fake.decided = false
	must(t, w.in.take(t.Context(), roomID, []*received{&fake}))
	if fake.result.Outcome != api.OutcomeInvalid {
		t.Fatalf("got %s", fake.result.Outcome)
	}
}

func TestAnOutlierFindsItsPlace(t *testing.T) {
	w := newWorld(t)
	roomID, log := w.withBob("11")
	secret := w.build(roomID, log, w.tips(roomID), message("secret"), create, levels, memberOfBob)
	room, err := w.in.Reader.Room(t.Context(), roomID)
	must(t, err)
	// As an outlier and with its place, in one transaction.
	all := []*received{{origin: "there", outlier: true}, {origin: "there"}}
	for _, r := range all {
		must(t, w.in.receive(t.Context(), room, r, secret.JSON()))
	}
	must(t, w.in.take(t.Context(), roomID, all))
	if after := w.log(roomID); len(after) != len(log)+1 || after[len(log)].Event.ID() != secret.ID() {
		t.Fatalf("the log has %d events, want %d", len(after), len(log)+1)
	}
	// Redacted while it was an outlier.
	hidden := w.build(roomID, log, w.tips(roomID), message("hidden"), create, levels, memberOfBob)
	p := proto(bob, pdu.TypeRedaction, nil, `{}`)
	p.Redacts = hidden.ID()
	redaction := w.build(roomID, log, w.tips(roomID), p, create, levels, memberOfBob)
	r := &received{origin: "there", outlier: true}
	must(t, w.in.receive(t.Context(), room, r, hidden.JSON()))
	must(t, w.in.take(t.Context(), roomID, []*received{r}))
	w.expect(roomID, api.OutcomeAccepted, redaction, hidden)
	found, err := w.in.Storage.EventsByID(t.Context(), []id.EventID{hidden.ID()})
	must(t, err)
	if string(found[0].PDU.Content()) != "{}" || found[0].RedactedBy != redaction.ID() {
		t.Fatalf("got %s, redacted by %q", found[0].PDU.Content(), found[0].RedactedBy)
	}
}

// unreachable fails to verify the events of one body.
type unreachable struct{ keys }

func (k unreachable) VerifyPDU(ctx context.Context, e *pdu.Event) error {
	if string(e.Content()) == `{"body":"unreachable"}` {
		return errors.New("the server does not answer")
	}
	return k.keys.VerifyPDU(ctx, e)
}

func TestAnEventThatCannotBeCheckedDoesNotHoldTheOthersBack(t *testing.T) {
	w := newWorld(t)
	w.in.Keys = unreachable{w.in.Keys.(keys)}
	roomID, log := w.withBob("11")
	bad := w.build(roomID, log, w.tips(roomID), message("unreachable"), create, levels, memberOfBob)
	good := w.build(roomID, log, w.tips(roomID), message("good"), create, levels, memberOfBob)
	_, err := w.in.InputPDUs(t.Context(), api.InputPDUsRequest{Origin: "there", RoomID: roomID, PDUs: rawOf(bad, good)})
	if err == nil {
		t.Fatal("a PDU that could not be checked is answered as if it were")
	}
	if after := w.log(roomID); len(after) != len(log)+1 || after[len(log)].Event.ID() != good.ID() {
		t.Fatalf("the log has %d events, want %d", len(after), len(log)+1)
	}
}

func TestAPanicFailsOneInputOnly(t *testing.T) {
	w := newWorld(t)
	roomID := w.room("11")
	_, err := w.in.Local(t.Context(), roomID, "", func(context.Context, View) ([]Proto, id.EventID, error) { panic("broken") })
	if err == nil {
		t.Fatal("it succeeded")
	}
	if _, err := w.say(roomID, "", "after"); err != nil {
		t.Fatal(err)
	}
}

func TestARedactedNameLeavesTheSummary(t *testing.T) {
	w := newWorld(t)
	roomID := w.room("11")
	var name id.EventID
	set := func(eventType, content string) {
		t.Helper()
		var err error
		name, err = w.in.Local(t.Context(), roomID, "", func(context.Context, View) ([]Proto, id.EventID, error) {
			return []Proto{proto(alice, eventType, str(""), content)}, "", nil
		})
		must(t, err)
	}
	set("m.room.name", `{"name":"secret"}`)
	w.in.known.Purge() // as after a restart
	p := proto(alice, pdu.TypeRedaction, nil, `{}`)
	p.Redacts = name
	_, err := w.in.Local(t.Context(), roomID, "", func(context.Context, View) ([]Proto, id.EventID, error) { return []Proto{p}, "", nil })
	must(t, err)
	all, err := w.in.Storage.Summaries(t.Context(), []id.RoomID{roomID})
	must(t, err)
	if all[0].Name != "" {
		t.Fatalf("the summary has the name %q", all[0].Name)
	}
}

func TestRoomsThatAreMadeAlikeAtTheSameMomentAreDifferent(t *testing.T) {
	w := newWorld(t)
	seen := map[id.RoomID]bool{}
	for range 20 {
		p := proto(alice, pdu.TypeCreate, str(""), `{"room_version":"12"}`)
		p.OriginServerTS = 1_000_000
		roomID, err := w.in.Create(t.Context(), "12", "", "", []Proto{p}, nothingElse)
		must(t, err)
		seen[roomID] = true
	}
	if len(seen) != 20 {
		t.Fatalf("20 calls made %d rooms", len(seen))
	}
}
