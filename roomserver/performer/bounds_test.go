package performer_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/test/roomtest"
)

func TestAnUpgradedSpaceKeepsChildrenUpToABound(t *testing.T) {
	w := roomtest.New(t, true)
	space := roomtest.Must(w, w.CreateRoom, api.CreateRoomRequest{Creator: alice,
		CreationContent: json.RawMessage(`{"type":"m.space"}`)}).RoomID
	const children, size, bound = 300, 60_000, 16 << 20
	order := strings.Repeat("x", size)
	for i := range children {
		w.Set(space, alice, "m.space.child", fmt.Sprintf("!child%d:here", i),
			fmt.Sprintf(`{"via":["here"],"x.order":%q}`, order))
	}
	made := roomtest.Must(w, w.UpgradeRoom, api.UpgradeRoomRequest{RoomID: space, UserID: alice,
		NewVersion: "12"}).RoomID
	kept := 0
	for _, e := range roomtest.Must(w, w.QueryState, api.QueryStateRequest{RoomID: made}).Events {
		if e.PDU.Type() == "m.space.child" {
			kept++
		}
	}
	if kept*size > bound || kept < bound/size-10 {
		t.Errorf("%d children of %d bytes were carried over, want as many as are %d bytes", kept, size, bound)
	}
}

// A caller who goes away while the room's worker is at its input reads nothing that the worker writes. The race
// detector sees it.
func TestACallerWhoGoesAwayReadsNothingOfTheWorker(t *testing.T) {
	w := roomtest.New(t, true)
	old := w.Room("shared")
	room := roomtest.Must(w, w.CreateRoom, api.CreateRoomRequest{Creator: alice, Preset: "public_chat",
		CreationContent: json.RawMessage(fmt.Sprintf(`{"predecessor":{"room_id":%q,"event_id":"$e"}}`, old))}).RoomID
	gone := 0
	for i := range 200 {
		ctx, leave := context.WithCancel(t.Context())
		var leaving sync.WaitGroup
		leaving.Go(func() {
			for range 100 * i {
				runtime.Gosched()
			}
			leave()
		})
		joined, err := w.JoinRoom(ctx, api.JoinRoomRequest{UserID: bob, RoomIDOrAlias: string(room)})
		switch {
		case err == nil && joined.Predecessor != old:
			t.Errorf("the predecessor is %q", joined.Predecessor)
		case errors.Is(err, context.Canceled):
			gone++
		case err != nil:
			t.Error(err)
		}
		leaving.Wait()
	}
	t.Logf("%d of 200 callers had gone", gone)
}
