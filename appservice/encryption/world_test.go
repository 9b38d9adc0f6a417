package encryption

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/sirupsen/logrus"

	"github.com/matrix-org/dendrite/appservice/storage"
	"github.com/matrix-org/dendrite/appservice/storage/storagetest"
	"github.com/matrix-org/dendrite/appservice/transactions"
	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/common/registration"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/common/test"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
)

var errCrash = errors.New("the process ends here")

// world is a server with two bridges that encrypt and a service that does not, and what the bridges have been told.
type world struct {
	t     *testing.T
	store *storage.Store
	held  *registration.Holder
	s     *Service

	changing sync.Mutex // held while a membership changes, here and in the tables

	mu      sync.Mutex
	chance  *rand.Rand
	members map[id.RoomID]map[id.UserID]string
	states  []map[id.UserID]string // members of a room, by root
	during  func()                 // runs while it is found out which rooms a user is in

	users, ghosts []id.UserID
	rooms         []id.RoomID
	bridges       map[string]*bridge
}

// bridge is what a service has learnt.
type bridge struct {
	*registration.Registration
	knows         map[id.UserID]bool
	changed, left []id.UserID // since that was last looked at
	mail          []message
	counts        map[id.UserID]map[id.DeviceID]map[string]int
	unused        map[id.UserID]map[id.DeviceID][]string
	parts         int
}

const here = id.ServerName("test.example")

func worlds(t *testing.T, body func(t *testing.T, w *world)) {
	storagetest.Each(t, func(t *testing.T, connection string) { body(t, newWorld(t, connection)) })
}

func newWorld(t *testing.T, url string) *world {
	t.Helper()
	w := &world{t: t, chance: rand.New(rand.NewPCG(test.Seed(t), 1)), members: make(map[id.RoomID]map[id.UserID]string),
		bridges: make(map[string]*bridge)}
	w.store = storagetest.Open(t, url)
	var all []*registration.Registration
	for _, name := range []string{"irc", "xmpp", "plain"} {
		r := &registration.Registration{ID: name, URL: "http://" + name, ASToken: "as-" + name, HSToken: "hs-" + name,
			Sender: id.NewUserID(name, here), Encryption: name != "plain",
			Users: []registration.Namespace{{Regex: "@" + name + "_.*", Exclusive: true}}}
		all = append(all, r)
		w.bridges[name] = &bridge{Registration: r, knows: make(map[id.UserID]bool),
			counts: make(map[id.UserID]map[id.DeviceID]map[string]int), unused: make(map[id.UserID]map[id.DeviceID][]string)}
		for i := range 3 {
			w.ghosts = append(w.ghosts, id.NewUserID(fmt.Sprint(name, "_", i), here))
		}
	}
	for i := range 5 {
		w.users = append(w.users, id.NewUserID(fmt.Sprint("user", i), here), id.NewUserID(fmt.Sprint("far", i), "far.example"))
	}
	for i := range 4 {
		room := id.RoomID(fmt.Sprint("!room", i, ":test.example"))
		w.rooms, w.members[room] = append(w.rooms, room), make(map[id.UserID]string)
	}
	set, err := registration.NewSet(here, all)
	if err != nil {
		t.Fatal(err)
	}
	w.held = registration.NewHolder(set)
	w.restart()
	return w
}

// restart begins anew with what is stored.
func (w *world) restart() {
	w.s = New(Options{Store: w.store, Registrations: w.held, Wake: func(string) {}, Log: logrus.NewEntry(logrus.New()),
		Room: &roomserver.RoomserverAPI{QueryMemberships: w.memberships, QueryMembers: w.inRoom, QueryState: w.atRoot}})
	w.must(w.s.follow(w.t.Context()))
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) pick(n int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.chance.IntN(n)
}

// has tells whether a service has a user in a room. The caller holds the lock.
func (w *world) has(service string, room id.RoomID) bool {
	set := w.held.Load()
	for user, membership := range w.members[room] {
		if membership == "join" && set.Owns(set.ByID(service), user) {
			return true
		}
	}
	return false
}

func (w *world) memberships(
	_ context.Context, req roomserver.QueryMembershipsRequest,
) (res roomserver.QueryMembershipsResponse, err error) {
	w.mu.Lock()
	for _, room := range w.rooms {
		if is := w.members[room][req.UserID]; slices.Contains(req.Memberships, is) {
			res.Rooms = append(res.Rooms, roomserver.UserRoom{RoomID: room, Membership: is})
		}
	}
	during := w.during
	w.mu.Unlock()
	if during != nil {
		during()
	}
	return res, nil
}

func (w *world) inRoom(
	_ context.Context, req roomserver.QueryMembersRequest,
) (res roomserver.QueryMembersResponse, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	res.Events, err = memberEvents(req.RoomID, w.members[req.RoomID])
	return res, err
}

func (w *world) atRoot(
	_ context.Context, req roomserver.QueryStateRequest,
) (res roomserver.QueryStateResponse, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	res.Events, err = memberEvents(req.RoomID, w.states[binary.BigEndian.Uint64(req.Root[:])-1])
	return res, err
}

func memberEvents(room id.RoomID, members map[id.UserID]string) (all []roomserver.Event, err error) {
	for user, membership := range members {
		text := fmt.Sprintf(`{"type":"m.room.member","room_id":%q,"sender":%q,"state_key":%q,"origin_server_ts":1,"depth":1,`+
			`"content":{"membership":%q},"prev_events":[],"auth_events":[]}`, room, user, user, membership)
		event, err := pdu.ParseTrusted("11", "$event", json.RawMessage(text))
		if err != nil {
			return nil, err
		}
		all = append(all, roomserver.Event{PDU: event})
	}
	return all, nil
}

// member changes a membership, as the consumer of rooms tells it.
func (w *world) member(room id.RoomID, user id.UserID, membership string) {
	w.t.Helper()
	w.changing.Lock()
	defer w.changing.Unlock()
	w.mu.Lock()
	old := w.members[room][user]
	before, after := make(map[string]bool), make(map[string]bool)
	for name := range w.bridges {
		before[name] = w.has(name, room)
	}
	w.members[room][user] = membership
	for name := range w.bridges {
		after[name] = w.has(name, room)
	}
	w.states = append(w.states, maps.Clone(w.members[room]))
	var root roomserver.Root
	binary.BigEndian.PutUint64(root[:], uint64(len(w.states)))
	w.mu.Unlock()
	var users []storage.ServiceUser
	var rooms []storage.ServiceRoom
	for name := range w.bridges {
		if (before[name] || after[name]) && old != membership {
			users = append(users, storage.ServiceUser{Service: name, UserID: user})
		}
		if before[name] != after[name] {
			rooms = append(rooms, storage.ServiceRoom{Service: name, RoomID: room, Root: root})
		}
	}
	w.must(w.store.DB.Write(w.t.Context(), "rooms", func(ctx context.Context, tx *sqlutil.Tx) error {
		state := &storage.Room{RoomID: room, Users: make(map[string]int64)}
		for name, has := range after {
			if has {
				state.Users[name] = 1
			}
		}
		if err := w.store.PutRoom(ctx, tx, state, true, slices.Collect(maps.Keys(after))); err != nil {
			return err
		}
		return w.s.RoomsChanged(ctx, tx, users, rooms)
	}))
}

// record lets a taker apply a record.
func (w *world) record(
	take func(context.Context, []eventlog.Record) (eventlog.Apply, error), kind string, values ...any,
) {
	w.t.Helper()
	records := make([]eventlog.Record, len(values))
	for i, value := range values {
		text, err := json.Marshal(value)
		w.must(err)
		records[i] = eventlog.Record{Type: kind, Value: text}
	}
	apply, err := take(w.t.Context(), records)
	w.must(err)
	if apply != nil {
		w.must(w.store.DB.Write(w.t.Context(), "records", apply))
	}
}

// send collects what there is for a service, and gives it to the bridge if the transaction is stored. It returns false
// if there was nothing.
func (w *world) send(b *bridge, crash bool, about ...id.UserID) bool {
	w.t.Helper()
	part, err := w.s.Collect(w.t.Context(), b.Registration, about)
	w.must(err)
	if part.Empty() {
		return false
	}
	err = w.store.DB.Write(w.t.Context(), "transaction", func(ctx context.Context, tx *sqlutil.Tx) error {
		if err := part.Taken(ctx, tx); err != nil || !crash {
			return err
		}
		return errCrash
	})
	if crash && errors.Is(err, errCrash) {
		return true
	}
	w.must(err)
	b.take(w.t, &part)
	return true
}

func (b *bridge) take(t *testing.T, part *transactions.Part) {
	b.parts++
	for _, text := range part.ToDevice {
		var m message
		if err := json.Unmarshal(text, &m); err != nil {
			t.Fatal(err)
		}
		b.mail = append(b.mail, m)
	}
	for _, user := range part.Changed {
		b.knows[user] = true
	}
	for _, user := range part.Left {
		delete(b.knows, user)
	}
	b.changed, b.left = append(b.changed, part.Changed...), append(b.left, part.Left...)
	merge(b.counts, part.OneTimeKeyCounts)
	merge(b.unused, part.UnusedFallbackKeyTypes)
}

func merge[V any](into, from map[id.UserID]map[id.DeviceID]V) {
	for user, devices := range from {
		if into[user] == nil {
			into[user] = make(map[id.DeviceID]V)
		}
		maps.Copy(into[user], devices)
	}
}

// settle looks at all that is noted, and sends everything.
func (w *world) settle() {
	w.t.Helper()
	w.must(w.s.lookAll(w.t.Context()))
	for _, name := range slices.Sorted(maps.Keys(w.bridges)) {
		for w.send(w.bridges[name], false) {
		}
	}
}

// shared are the users of others who share a room with users of a bridge.
func (w *world) shared(b *bridge) []id.UserID {
	w.mu.Lock()
	defer w.mu.Unlock()
	set := w.held.Load()
	found := make(map[id.UserID]bool)
	for _, room := range w.rooms {
		if !b.Encrypts() || !w.has(b.ID, room) {
			continue
		}
		for user, membership := range w.members[room] {
			if (membership == "join" || membership == "invite") && !set.Owns(b.Registration, user) {
				found[user] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(found))
}

func (w *world) step() {
	everybody := slices.Concat(w.users, w.ghosts)
	w.member(w.rooms[w.pick(len(w.rooms))], everybody[w.pick(len(everybody))], []string{"join", "leave", "invite", "join", "ban"}[w.pick(5)])
}
