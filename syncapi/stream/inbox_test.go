package stream

import (
	"fmt"
	"testing"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/syncapi/storage"
)

func sent(prev int64, devices ...id.DeviceID) update {
	u := update{prev: prev, pos: prev + 1}
	for _, device := range devices {
		u.touched = append(u.touched, storage.Touched{Kind: storage.KindToDevice, User: alice, Device: device})
	}
	return u
}

// Where nothing was sent to a device since its inbox was emptied, nobody asks the database whether there is something
// to remove.
func TestWhatIsEmptiedIsKnownToBeEmpty(t *testing.T) {
	h := newHub(t)
	if !h.MayHold(alice, "A", 90) {
		t.Error("at first nothing is known")
	}
	h.Emptied(alice, "A", 100)
	for _, upTo := range []int64{90, 100} {
		if h.MayHold(alice, "A", upTo) {
			t.Errorf("what is emptied holds something up to %d", upTo)
		}
	}
	if !h.MayHold(alice, "B", 100) {
		t.Error("another device's is emptied too")
	}
	h.receive(says("!a:test", 100, 101))
	h.receive(sent(101, "B"))
	if h.MayHold(alice, "A", 102) {
		t.Error("what is for another device is in it")
	}
	h.receive(sent(102, "A"))
	if h.MayHold(alice, "A", 102) || !h.MayHold(alice, "A", 103) {
		t.Error("the message at 103 is not known, or is taken for older")
	}
	h.Emptied(alice, "A", 103)
	h.receive(sent(103, "")) // to all devices
	if h.MayHold(alice, "A", 103) || !h.MayHold(alice, "A", 104) {
		t.Error("a message to all devices is not one to this")
	}
	h.Emptied(alice, "A", 1000) // is not known yet
	h.receive(sent(104, "A"))
	if !h.MayHold(alice, "A", 105) {
		t.Error("it was emptied up to what nobody knew")
	}
	h.Emptied(alice, "A", 105)
	h.reset(200)
	if !h.MayHold(alice, "A", 200) {
		t.Error("what was not heard of is not there")
	}
}

// Of a user whose devices come and go, changes are not kept for each.
func TestChangesForManyDevicesBecomeOneForAll(t *testing.T) {
	h := newHub(t)
	for n := range 10_000 {
		h.receive(sent(100+int64(n), id.DeviceID(fmt.Sprint(n))))
		h.Emptied(alice, id.DeviceID(fmt.Sprint(n)), 101)
	}
	u := h.users[alice]
	if len(u.changes) > maxChanges || len(u.inboxes) > maxInboxes {
		t.Errorf("%d changes and %d inboxes are kept", len(u.changes), len(u.inboxes))
	}
	for _, device := range []id.DeviceID{"9999", "9000", "0"} {
		if w := h.look(alice, 100, 0); !w.Changed(storage.KindToDevice, device) {
			t.Errorf("what was sent to %s is forgotten", device)
		}
	}
}

// A device is woken by what is for it, and others are not.
func TestMessagesWakeTheirDevice(t *testing.T) {
	h := newHub(t)
	asleep := make(map[id.DeviceID]*Sleeper)
	for _, device := range []id.DeviceID{"A", "B"} {
		s, err := h.Sleep(alice, device)
		if err != nil {
			t.Fatal(err)
		}
		asleep[device] = s
	}
	h.receive(sent(100, "A"))
	select {
	case <-asleep["B"].C:
		t.Error("another device is woken")
	case <-asleep["A"].C:
	default:
		t.Error("nobody is woken")
	}
}
