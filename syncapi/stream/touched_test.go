package stream

import (
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/syncapi/storage"
)

// asleep makes sleepers of devices of a user.
func asleep(t *testing.T, h *Hub, name id.UserID, devices ...id.DeviceID) map[id.DeviceID]*Sleeper {
	t.Helper()
	all := make(map[id.DeviceID]*Sleeper)
	for _, device := range devices {
		s, err := h.Sleep(name, device)
		if err != nil {
			t.Fatal(err)
		}
		all[device] = s
	}
	return all
}

func logTo(t *testing.T) *logrus.Entry {
	log := logrus.New()
	log.SetOutput(t.Output())
	return logrus.NewEntry(log)
}

func (s *Sleeper) isWoken() bool {
	select {
	case <-s.C:
		return true
	default:
		return false
	}
}

func TestWhatIsForOneDeviceWakesNoOther(t *testing.T) {
	const kind = storage.KindAccountData // any that is of a user
	h := newHub(t, "!a:test")
	sleepers := asleep(t, h, alice, "PHONE", "LAPTOP", "")
	other := asleep(t, h, "@bob:test", "PHONE")["PHONE"]
	h.receive(update{prev: 100, pos: 101, touched: []storage.Touched{{Kind: kind, User: alice, Device: "PHONE"}}})
	for device, s := range sleepers {
		if woken := s.isWoken(); woken != (device == "PHONE") {
			t.Errorf("device %q is woken: %v", device, woken)
		}
	}
	w := h.look(alice, 100, 0)
	if !w.Changed(kind, "PHONE") || w.Changed(kind, "LAPTOP") || w.Changed(kind, "") ||
		w.Changed(storage.KindMemberships, "PHONE") {
		t.Errorf("what has changed: %+v", w.changes)
	}
	if w := h.look(alice, 101, 0); w.Changed(kind, "PHONE") {
		t.Error("the device is told twice")
	}
	h.receive(update{prev: 101, pos: 102, touched: []storage.Touched{{Kind: kind, User: alice}}})
	for device, s := range sleepers {
		if !s.isWoken() {
			t.Errorf("device %q is not woken by what is for all", device)
		}
		if !h.look(alice, 101, 0).Changed(kind, device) {
			t.Errorf("device %q is not told what is for all", device)
		}
	}
	if other.isWoken() {
		t.Error("another user's device is woken")
	}
}

// Of a kind that only a newer release knows, the database is asked.
func TestOfAnUnknownKindNothingIsLost(t *testing.T) {
	const bob = id.UserID("@bob:test")
	for name, test := range map[string]struct {
		touched    storage.Touched
		alice, bob bool // are woken
	}{
		"of a user":   {storage.Touched{Kind: "new", User: alice, Room: "!a:test"}, true, false},
		"of a device": {storage.Touched{Kind: "new", User: alice, Device: "PHONE"}, true, false},
		"of a room":   {storage.Touched{Kind: "new", Room: "!a:test"}, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHub(t, "!a:test")
			h.keepView(bob, &View{Joined: []id.RoomID{"!a:test"}})
			a, b := asleep(t, h, alice, "PHONE")["PHONE"], asleep(t, h, bob, "")[""]
			h.KeepCounts(alice, 100, []storage.Unread{{RoomID: "!a:test"}})
			h.receive(update{prev: 100, pos: 101, touched: []storage.Touched{test.touched}})
			if woken := [2]bool{a.isWoken(), b.isWoken()}; woken != [2]bool{test.alice, test.bob} {
				t.Errorf("woken: %v", woken)
			}
			if test.touched.User != "" {
				if h.look(alice, 100, 0) != nil {
					t.Error("the old view is still shown")
				}
				h.keepView(alice, &View{Joined: []id.RoomID{"!a:test"}})
				if w := h.look(alice, 100, 0); w.Complete || !w.Changed(storage.KindAccountData, "") {
					t.Error("it is not known what has changed, but the window says that it is complete")
				}
				if w := h.look(alice, 101, 0); !w.Complete {
					t.Error("the window is not complete although everything is known since")
				}
			} else {
				in := h.look(alice, 100, 0).Rooms["!a:test"]
				changed, known := in.TimelineChanged && in.ReceiptsChanged, in.TimelineKnown || in.ReceiptsKnown
				if !changed || known || in.Unread != nil {
					t.Errorf("known of the room: %+v", in)
				}
			}
		})
	}
}

// A message that cannot be understood is as one that is lost: the next one, or the position, tells that something is
// missing.
func TestAMessageOfAnotherReleaseIsAsOneThatIsLost(t *testing.T) {
	for name, message := range map[string]string{
		"without what is touched": `{"prev":100,"pos":101,"rooms":["!a:test"],"data":["@alice:test"]}`,
		"with what names nothing": `{"prev":100,"pos":101,"touched":[{"kind":"new","server":"test"}]}`,
		"of another form":         `{"prev":100,"pos":101,"touched":{"a":1}}`,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHub(t, "!a:test")
				h.o.Log = logTo(t)
				s := asleep(t, h, alice, "PHONE")["PHONE"]
				h.hear(t.Context(), []byte(message))
				if h.pos != 100 {
					t.Fatalf("the position is %d after what is not understood", h.pos)
				}
				h.hear(t.Context(), []byte(`{"replica":"there","prev":101,"pos":102,"touched":[]}`))
				<-time.After(2 * patience)
				synctest.Wait()
				if h.pos != 102 || h.floor != 102 || !s.isWoken() {
					t.Errorf("position %d, floor %d: want 102, and everybody woken to read the database", h.pos,
						h.floor)
				}
			})
		})
	}
}

func TestWhatACommitTouchesIsToldOnce(t *testing.T) {
	c := storage.Changes{
		Timeline: []storage.TimelineRow{{RoomID: "!a:test"}, {RoomID: "!a:test"}, {RoomID: "!b:test"}},
		Receipts: []storage.Receipt{
			{RoomID: "!a:test", UserID: alice, Type: storage.Read},
			{RoomID: "!a:test", UserID: alice, Type: storage.ReadPrivate},
		},
		Mentions: []storage.Mention{
			{RoomID: "!a:test"},
			{RoomID: "!a:test", UserID: alice},
			{RoomID: "!a:test", UserID: alice},
		},
		AccountData: []storage.AccountData{{UserID: alice, Type: "x"}, {UserID: alice, Type: storage.PushRules}},
		Memberships: []storage.Membership{{UserID: alice}},
		Touched: []storage.Touched{
			{Kind: storage.KindPushers, User: alice},
			{Kind: storage.KindPushers, User: alice},
		},
	}
	want := map[storage.Touched]int{
		{Kind: storage.KindTimeline, Room: "!a:test"}: 1, {Kind: storage.KindTimeline, Room: "!b:test"}: 1,
		{Kind: storage.KindReceipts, Room: "!a:test"}: 1, {Kind: storage.KindReceipts, Room: "!a:test", User: alice}: 1,
		{Kind: storage.KindCounts, Room: "!a:test"}: 1, {Kind: storage.KindCounts, Room: "!a:test", User: alice}: 1,
		{Kind: storage.KindAccountData, User: alice}: 1, {Kind: storage.KindSettings, User: alice}: 1,
		{Kind: storage.KindMemberships, User: alice}: 1, {Kind: storage.KindPushers, User: alice}: 1,
	}
	got := make(map[storage.Touched]int)
	for _, touched := range c.AllTouched() {
		got[touched]++
	}
	for touched := range want {
		if got[touched] != 1 {
			t.Errorf("%+v is told %d times", touched, got[touched])
		}
	}
	if len(got) != len(want) {
		t.Errorf("told: %+v", got)
	}
}

func TestAViewFromBeforeSomethingWasMissedIsNotKept(t *testing.T) {
	const bob = id.UserID("@bob:test")
	for name, miss := range map[string]func(h *Hub){
		"everything may have changed": func(h *Hub) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.reset(101)
		},
		"the user's memberships": func(h *Hub) {
			moved := storage.Touched{Kind: storage.KindMemberships, User: bob}
			h.receive(update{prev: 100, pos: 101, touched: []storage.Touched{moved}})
		},
		"a kind that is unknown": func(h *Hub) {
			h.receive(update{prev: 100, pos: 101, touched: []storage.Touched{{Kind: "new", User: bob}}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHub(t)
			miss(h)
			h.offerView(bob, &View{}, 100)
			if h.look(bob, 101, 0) != nil {
				t.Error("an old view is kept")
			}
			h.offerView(bob, &View{}, 101)
			if h.look(bob, 101, 0) == nil {
				t.Error("a new view is not kept")
			}
		})
	}
}

func TestOnlySoManyCommitsWaitForOneBeforeThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(t, "!a:test")
		for i := range int64(maxEarly + 1) { // each two positions after one that is missing
			if len(h.early) > maxEarly {
				t.Fatalf("%d wait", len(h.early))
			}
			h.receive(says("!a:test", 101+2*i, 102+2*i))
		}
		if want := int64(102 + 2*maxEarly); h.pos != want || h.floor != want || len(h.early) != 0 {
			t.Errorf("position %d, floor %d, %d wait: want %d and none", h.pos, h.floor, len(h.early), want)
		}
	})
}

// A commit without rows, as that of a receipt which is behind, is a message that others understand.
func TestACommitThatTouchesNothingIsUnderstood(t *testing.T) {
	here, there := newHub(t), newHub(t)
	there.replica, there.o.Log = "there", logTo(t)
	here.Committed(storage.Changes{Prev: 100, Pos: 101})
	message, err := json.Marshal(<-here.outbox)
	if err != nil {
		t.Fatal(err)
	}
	there.hear(t.Context(), message)
	if there.pos != 101 || there.floor != 100 {
		t.Errorf("after %s: position %d, floor %d, want 101 and 100", message, there.pos, there.floor)
	}
}
