package stream

import (
	"context"
	"testing"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/syncapi/storage"
)

type ctx = context.Context

func keysOf(device id.DeviceID, oneTime string) *storage.Changes {
	keys := storage.DeviceKeys{UserID: alice, DeviceID: device, OneTime: []byte(oneTime), Fallback: []byte(`[]`)}
	return &storage.Changes{DeviceKeys: []storage.DeviceKeys{keys}}
}

func (h *Hub) lookAs(t *testing.T, device id.DeviceID, since int64) *Window {
	t.Helper()
	w, err := h.LookAs(t.Context(), alice, device, since, 0)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestTheKeysOfADeviceAreReadOnce(t *testing.T) {
	h := newHub(t, roomA)
	h.o.Sole = true
	withStorage(t, h)
	h.keepView(alice, &View{Joined: []id.RoomID{roomA}})
	sleepers := asleep(t, h, alice, "PHONE", "LAPTOP")
	count := func(want int64, do func()) {
		t.Helper()
		before := h.o.Storage.DB().Count()
		do()
		if got := h.o.Storage.DB().Count().Since(before).Statements; got != want {
			t.Errorf("%d statements, want %d", got, want)
		}
	}
	count(1, func() {
		if keys := h.lookAs(t, "PHONE", 0).Keys("PHONE"); keys != nil {
			t.Errorf("keys of a device that never had any: %+v", keys)
		}
	})
	pos := commit(t, h, keysOf("PHONE", `{"a":1}`))
	if !sleepers["PHONE"].isWoken() || sleepers["LAPTOP"].isWoken() {
		t.Error("not the device, or another one, is woken")
	}
	count(0, func() {
		if keys := h.lookAs(t, "PHONE", 0).Keys("PHONE"); keys == nil || string(keys.OneTime) != `{"a":1}` || keys.Pos != pos {
			t.Errorf("keys after a commit: %+v", keys)
		}
	})
	// Another replica tells only that they have changed.
	commit(t, h, &storage.Changes{Touched: []storage.Touched{{Kind: storage.KindKeyCounts, User: alice, Device: "PHONE"}}})
	count(1, func() { h.lookAs(t, "PHONE", 0) })
	count(0, func() { h.lookAs(t, "PHONE", 0) })
	h.mu.Lock()
	h.reset(h.pos)
	h.mu.Unlock()
	h.keepView(alice, &View{Joined: []id.RoomID{roomA}})
	count(1, func() { h.lookAs(t, "PHONE", 0) })
	commit(t, h, &storage.Changes{Touched: []storage.Touched{{Kind: storage.KindKeyCounts, User: alice}}})
	count(1, func() { h.lookAs(t, "PHONE", 0) })
}
