package events

import (
	"context"
	"encoding/json"
	"fmt"
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
