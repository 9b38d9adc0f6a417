package input

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/roomserver/api"
)

// firstEvents are those of a room with so many state events.
func firstEvents(n int, body string) []Proto {
	empty := ""
	protos := []Proto{proto(alice, "m.room.create", &empty, `{"room_version":"12"}`),
		proto(alice, "m.room.member", str(string(alice)), `{"membership":"join"}`)}
	for i := range n {
		content := fmt.Sprintf(`{"n":%d,"body":%q}`, i, body)
		protos = append(protos, proto(alice, "org.test", str(fmt.Sprint("key", i)), content))
	}
	return protos
}

// costOfCreating counts the memory that making a room takes, whether or not it is kept, and the statements.
func costOfCreating(t *testing.T, n int) (bytes, statements int64) {
	w := newWorld(t)
	protos := firstEvents(n, "")
	var before, after runtime.MemStats
	counted := w.in.Storage.DB.Count()
	runtime.ReadMemStats(&before)
	_, err := w.in.Create(t.Context(), "12", "", "", protos, nothingElse)
	runtime.ReadMemStats(&after)
	must(t, err)
	return int64(after.TotalAlloc - before.TotalAlloc), w.in.Storage.DB.Count().Since(counted).Statements
}

func TestEachFirstEventOfARoomCostsTheSame(t *testing.T) {
	const few, factor = 200, 10
	bytes, statements := costOfCreating(t, few)
	manyBytes, manyStatements := costOfCreating(t, few*factor)
	t.Logf("%d events: %d bytes, %d statements; %d events: %d bytes, %d statements",
		few, bytes, statements, few*factor, manyBytes, manyStatements)
	if manyBytes > 2*factor*bytes {
		t.Errorf("%d times the events take %d times the memory", factor, manyBytes/bytes)
	}
	if statements > few/2 || manyStatements > few*factor/2 {
		t.Errorf("%d events take %d statements, %d take %d: that is a question for each",
			few, statements, few*factor, manyStatements)
	}
}

// What is in memory of rooms and events is bounded by its size, however large events are.
func TestLargeEventsAreBoundedInMemory(t *testing.T) {
	w := newWorld(t)
	large := strings.Repeat("x", 60_000)
	const rooms, events = 5, 160 // 48 MB
	for range rooms {
		_, err := w.in.Create(t.Context(), "12", "", "", firstEvents(events, large), nothingElse)
		must(t, err)
	}
	if n := w.in.known.Bytes(); n == 0 || n > knownBytes {
		t.Errorf("%d bytes of rooms' state are known, want at most %d", n, knownBytes)
	}
	if n := w.in.Reader.Kept(); n == 0 || n > 16<<20 {
		t.Errorf("%d bytes of events are kept, want at most %d", n, 16<<20)
	}
}

// A state event that a room's known state holds counts with its whole size.
func TestAStateEventCountsInTheKnownState(t *testing.T) {
	w := newWorld(t)
	roomID := w.room("11")
	set := func(body string) {
		t.Helper()
		p := proto(alice, "org.test", str("k"), fmt.Sprintf(`{"body":%q}`, body))
		_, err := w.in.Local(t.Context(), roomID, "", proposes(p))
		must(t, err)
	}
	set("small")
	before := w.in.known.Bytes()
	set(strings.Repeat("x", 50_000))
	if grown := w.in.known.Bytes() - before; grown < 49_900 || grown > 60_000 {
		t.Errorf("a state event of 50,000 bytes counts as %d", grown)
	}
	set("small again")
	if now := w.in.known.Bytes(); now > before+1000 {
		t.Errorf("when it is replaced, %d bytes are known, %d before", now, before)
	}
}

// One room's known state has a bound of its own, and what was forgotten is read again.
func TestTheKnownStateOfOneRoomIsBounded(t *testing.T) {
	w := newWorld(t)
	large := strings.Repeat("x", 60_000)
	const n = 160
	roomID, err := w.in.Create(t.Context(), "12", "", "", firstEvents(n, large), nothingElse)
	must(t, err)
	if k, has := w.in.known.Get(roomID); !has || k.bytes > knownBytesOfRoom {
		t.Fatalf("of the room %d bytes are known, want at most %d", k.bytes, knownBytesOfRoom)
	}
	_, err = w.in.Local(t.Context(), roomID, "", func(ctx context.Context, v View) ([]Proto, id.EventID, error) {
		for i := range n {
			e, err := v.One(ctx, "org.test", fmt.Sprint("key", i))
			if err != nil || e == nil || !strings.Contains(string(e.PDU.Content()), fmt.Sprintf(`"n":%d}`, i)) {
				t.Errorf("key%d is %v, %v", i, e, err)
			}
		}
		return nil, "", nil
	})
	must(t, err)
	if k, has := w.in.known.Get(roomID); !has || k.bytes > knownBytesOfRoom || w.in.known.Bytes() < k.bytes {
		t.Errorf("after reading all, %d bytes are known of the room, %d of all rooms", k.bytes, w.in.known.Bytes())
	}
}

// A request that changed nothing, because the state was so already, has its answer: a repetition does not undo what
// others did since.
func TestARepeatedRequestThatChangedNothingGetsTheFirstAnswer(t *testing.T) {
	w := newWorld(t)
	roomID := w.room("11")
	topic := func(key api.RequestKey, content string) id.EventID {
		t.Helper()
		eventID, err := w.in.Local(t.Context(), roomID, key,
			func(ctx context.Context, v View) ([]Proto, id.EventID, error) {
				now, err := v.One(ctx, "m.room.topic", "")
				if err != nil || now != nil && string(now.PDU.Content()) == content {
					return nil, now.PDU.ID(), err
				}
				return []Proto{proto(alice, "m.room.topic", str(""), content)}, "", nil
			})
		must(t, err)
		return eventID
	}
	first := topic("1", `{"topic":"a"}`)
	if again := topic("2", `{"topic":"a"}`); again != first {
		t.Fatalf("the same topic made %s of %s", again, first)
	}
	topic("3", `{"topic":"b"}`)
	if repeated := topic("2", `{"topic":"a"}`); repeated != first {
		t.Errorf("a repeated request got %s, the first time %s", repeated, first)
	}
}
