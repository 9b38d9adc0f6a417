package events

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/pdu"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
)

func large(t *testing.T, n int) roomserver.Event {
	t.Helper()
	const form = `{"content":{"body":%q},"room_id":"!r:here","sender":"@a:here","state_key":"%d","type":"x.state"}`
	body := fmt.Sprintf(form, strings.Repeat("x", 60_000), n)
	e, err := pdu.ParseTrusted("11", id.EventID(fmt.Sprint("$", n)), json.RawMessage(body))
	if err != nil {
		t.Fatal(err)
	}
	return roomserver.Event{PDU: e}
}

// What is kept is bounded by its size, however large events are.
func TestLargeEventsAndStatesAreBoundedInMemory(t *testing.T) {
	const events, states = 50, 40
	state := make([]roomserver.Event, events)
	for i := range state {
		state[i] = large(t, i)
	}
	asked := 0
	room := new(roomserver.RoomserverAPI)
	room.QueryState = func(context.Context, roomserver.QueryStateRequest) (roomserver.QueryStateResponse, error) {
		asked++
		return roomserver.QueryStateResponse{Events: state}, nil
	}
	c := New(room)
	for i := range events * states {
		e := large(t, i)
		c.Put(&e)
	}
	if n := c.byID.Bytes(); n > keptBytes || n < keptBytes*9/10 {
		t.Errorf("%d bytes of events are kept, want at most %d", n, keptBytes)
	}
	for i := range states {
		if _, err := c.State(t.Context(), "!r:here", roomserver.Root{1, byte(i)}, false, nil); err != nil {
			t.Fatal(err)
		}
	}
	if n := c.state.Bytes(); n > keptStateBytes || n < keptStateBytes*7/10 {
		t.Errorf("%d bytes of states are kept, want at most %d", n, keptStateBytes)
	}
	_, err := c.State(t.Context(), "!r:here", roomserver.Root{1, byte(states - 1)}, false, nil)
	if err != nil || asked != states {
		t.Errorf("the state that was used last was asked for again: %d questions, %v", asked, err)
	}
}

// An event that stays in memory does not keep the others that came with it there.
func TestAnEventThatIsKeptKeepsNoOthers(t *testing.T) {
	const answers, events = 20, 40
	room := new(roomserver.RoomserverAPI)
	room.QueryEvents = func(
		_ context.Context, req roomserver.QueryEventsRequest,
	) (res roomserver.QueryEventsResponse, err error) {
		for _, i := range req.EventIDs {
			n, err := strconv.Atoi(string(i[1:]))
			if err != nil {
				return res, err
			}
			res.Events = append(res.Events, large(t, n))
		}
		return res, nil
	}
	c := New(room)
	var used []id.EventID // the first of each answer
	for a := range answers {
		var ids []id.EventID
		for n := range events {
			ids = append(ids, id.EventID(fmt.Sprint("$", a*events+n)))
		}
		used = append(used, ids[0])
		for _, ids := range [][]id.EventID{ids, used} {
			if _, err := c.Get(t.Context(), ids); err != nil {
				t.Fatal(err)
			}
		}
	}
	var with, without runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&with)
	kept := c.byID.Bytes()
	c.Purge()
	runtime.GC()
	runtime.ReadMemStats(&without)
	if n := int(with.HeapAlloc) - int(without.HeapAlloc); n > kept*3/2 {
		t.Errorf("events take %d bytes where %d are counted", n, kept)
	}
}

// A state that lazily loading clients get is asked for once, and then the members only that nobody had asked for.
func TestStatesOfLazilyLoadingClientsAreKept(t *testing.T) {
	event := func(eventType, key string) roomserver.Event {
		text := fmt.Sprintf(`{"content":{},"room_id":"!r:here","sender":"@a:here","state_key":%q,"type":%q}`, key, eventType)
		e, err := pdu.ParseTrusted("11", id.EventID("$"+eventType+key), json.RawMessage(text))
		if err != nil {
			t.Fatal(err)
		}
		return roomserver.Event{PDU: e}
	}
	var asked []id.UserID // by the last call
	questions := 0
	room := new(roomserver.RoomserverAPI)
	room.QueryState = func(
		_ context.Context, req roomserver.QueryStateRequest,
	) (res roomserver.QueryStateResponse, err error) {
		questions++
		users := req.Members
		for _, key := range req.Keys {
			users = append(users, id.UserID(key.StateKey))
		}
		asked = append(asked, users...)
		if req.Keys == nil {
			res.Events = append(res.Events, event("m.room.create", ""))
		}
		if req.Filter == nil && req.Keys == nil {
			users = []id.UserID{"@a:here", "@b:here", "@c:here"}
		}
		for _, user := range users {
			if user != "@gone:here" {
				res.Events = append(res.Events, event(typeMember, string(user)))
			}
		}
		return res, nil
	}
	c := New(room)
	state := func(lazy bool, users ...id.UserID) string {
		t.Helper()
		asked = nil
		events, err := c.State(t.Context(), "!r:here", roomserver.Root{1}, lazy, users)
		if err != nil {
			t.Fatal(err)
		}
		var keys []string
		for _, e := range events {
			key, _ := e.PDU.StateKey()
			keys = append(keys, key)
		}
		return fmt.Sprint(keys, asked, questions)
	}
	for i, step := range []struct{ got, want string }{
		{state(true, "@a:here", "@gone:here"), "[ @a:here] [@a:here @gone:here] 1"},
		{state(true, "@gone:here", "@a:here", "@a:here"), "[ @a:here] [] 1"},
		{state(true, "@a:here", "@b:here", "@b:here"), "[ @a:here @b:here] [@b:here] 2"},
		{state(true, "@b:here"), "[ @b:here] [] 2"},
		{state(false), "[ @a:here @b:here @c:here] [] 3"},
		{state(true, "@c:here"), "[ @c:here] [] 3"},
		{state(false), "[ @a:here @b:here @c:here] [] 3"},
	} {
		if step.got != step.want {
			t.Errorf("step %d: %s, want %s", i, step.got, step.want)
		}
	}
	c.Drop([]id.EventID{"$any"})
	if got := state(true, "@a:here"); got != "[ @a:here] [@a:here] 4" {
		t.Errorf("after an event changed: %s", got)
	}
}
