package syncapi_test

import (
	"cmp"
	"context"
	"crypto/md5"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/roomserver/api"
)

// rooms is a roomserver that allows everything: a log, and the state after each event.
type rooms struct {
	t     *testing.T
	db    *sqlutil.DB
	log   *eventlog.Log
	topic *eventlog.Topic
	calls struct{ events, states, diffs int }

	mu      sync.Mutex
	late    []func() // appends what is known but not in the log; nil if everything is appended at once
	n       int64
	rooms   map[id.RoomID]*fakeRoom
	events  map[id.EventID]*api.Event
	members map[id.EventID]map[id.UserID]string // memberships at each event
	states  map[api.Root]map[api.StateKeyTuple]id.EventID
}

type fakeRoom struct {
	state map[api.StateKeyTuple]id.EventID
	root  api.Root
	index int64
}

func newRooms(t *testing.T, db *sqlutil.DB) *rooms {
	t.Helper()
	f := &rooms{t: t, db: db, rooms: make(map[id.RoomID]*fakeRoom), events: make(map[id.EventID]*api.Event),
		states: make(map[api.Root]map[api.StateKeyTuple]id.EventID), members: make(map[id.EventID]map[id.UserID]string)}
	var err error
	if f.log, err = eventlog.New(t.Context(), db, "fakeroom", eventlog.Options{Sole: true}); err != nil {
		t.Fatal(err)
	}
	if f.topic, err = f.log.Topic(t.Context(), api.Topic, nil); err != nil {
		t.Fatal(err)
	}
	return f
}

type kv = map[string]any

func rootOf(state map[api.StateKeyTuple]id.EventID) (root api.Root) {
	if len(state) == 0 {
		return root
	}
	keys := slices.SortedFunc(maps.Keys(state), func(a, b api.StateKeyTuple) int {
		return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.StateKey, b.StateKey))
	})
	h := md5.New()
	for _, k := range keys {
		fmt.Fprintf(h, "%s\x00%s\x00%s\x00", k.Type, k.StateKey, state[k])
	}
	copy(root[:], h.Sum(nil))
	return root
}

// option changes what is sent.
type option func(*api.OutputEvent)

func transaction(device id.DeviceID, txn string) option {
	return func(o *api.OutputEvent) { o.DeviceID, o.TransactionID = device, txn }
}

func redacts(target id.EventID) option { return func(o *api.OutputEvent) { o.Redacts = target } }

// reset makes the event take another event's membership away, as a resolution of state may.
func reset(user id.UserID) option {
	return func(o *api.OutputEvent) {
		o.Changes = append(o.Changes, api.StateChange{Type: "m.room.member", StateKey: string(user), OldMembership: "join", NewMembership: ""})
	}
}

func (f *rooms) state(room id.RoomID, sender id.UserID, eventType, key string, content kv, options ...option) id.EventID {
	f.t.Helper()
	return f.put(room, sender, eventType, &key, content, options...)
}

func (f *rooms) member(room id.RoomID, sender, user id.UserID, membership string) id.EventID {
	f.t.Helper()
	return f.state(room, sender, "m.room.member", string(user), kv{"membership": membership, "displayname": user.Localpart()})
}

func (f *rooms) say(room id.RoomID, sender id.UserID, body string, options ...option) id.EventID {
	f.t.Helper()
	return f.put(room, sender, "m.room.message", nil, kv{"msgtype": "m.text", "body": body}, options...)
}

// put sends an event.
func (f *rooms) put(room id.RoomID, sender id.UserID, eventType string, stateKey *string, content kv, options ...option) id.EventID {
	f.t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.n++
	eventID := id.EventID(fmt.Sprintf("$event%d", f.n))
	raw := kv{"type": eventType, "sender": sender, "room_id": room, "content": content, "origin_server_ts": time.Now().UnixMilli(),
		"depth": f.n, "prev_events": []string{}, "auth_events": []string{}, "hashes": kv{"sha256": "x"}, "signatures": kv{}}
	if stateKey != nil {
		raw["state_key"] = *stateKey
	}
	text, err := json.Marshal(raw)
	if err != nil {
		f.t.Fatal(err)
	}
	e, err := pdu.ParseTrusted("10", eventID, text)
	if err != nil {
		f.t.Fatal(err)
	}
	r := f.rooms[room]
	if r == nil {
		r = &fakeRoom{state: make(map[api.StateKeyTuple]id.EventID)}
		f.rooms[room] = r
	}
	r.index++
	output := &api.OutputEvent{RoomID: room, RoomVersion: "10", Event: e, Order: api.OrderKey{Segment: 1, Index: r.index},
		RootBefore: r.root, StateRoot: r.root, Visibility: "shared"}
	stored := &api.Event{PDU: e, Order: output.Order}
	r.state = maps.Clone(r.state)
	if stateKey != nil {
		key := api.StateKeyTuple{Type: eventType, StateKey: *stateKey}
		change := api.StateChange{Type: eventType, StateKey: *stateKey, Old: r.state[key], New: eventID, NewMembership: e.Membership()}
		if old := f.events[change.Old]; old != nil {
			change.OldMembership = old.PDU.Membership()
			stored.ReplacesState, stored.PrevContent = change.Old, old.PDU.Content()
		}
		output.Changes = append(output.Changes, change)
		r.state[key] = eventID
	}
	for _, o := range options {
		o(output)
	}
	for _, c := range output.Changes {
		if c.New == "" {
			delete(r.state, api.StateKeyTuple{Type: c.Type, StateKey: c.StateKey})
		}
	}
	r.root = rootOf(r.state)
	f.states[r.root] = r.state
	output.RootAfter = r.root
	members := make(map[id.UserID]string)
	for key, event := range r.state {
		if key.Type == "m.room.member" {
			switch m := f.membershipOf(event, e); m {
			case "join":
				output.Joined++
				members[id.UserID(key.StateKey)] = m
			case "invite":
				output.Invited++
				fallthrough
			default:
				members[id.UserID(key.StateKey)] = m
			}
		}
	}
	stored.DeviceID, stored.TransactionID = output.DeviceID, output.TransactionID
	f.events[eventID], f.members[eventID] = stored, members
	if output.Redacts != "" {
		target := *f.events[output.Redacts]
		target.PDU, target.RedactedBecause = target.PDU.Redact(), e
		f.events[output.Redacts] = &target
	}
	f.append(string(room), api.TypeEvent, output)
	return eventID
}

func (f *rooms) membershipOf(event id.EventID, now *pdu.Event) string {
	if event == now.ID() {
		return now.Membership()
	}
	return f.events[event].PDU.Membership()
}

// holdBack keeps what is sent from now on out of the log, until what it returns is called. The roomserver knows it at
// once.
func (f *rooms) holdBack() (release func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.late = []func(){}
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		late := f.late
		f.late = nil
		for _, add := range late {
			add()
		}
	}
}

func (f *rooms) append(key, messageType string, message any) {
	f.t.Helper()
	if f.late != nil {
		f.late = append(f.late, func() { f.append(key, messageType, message) })
		return
	}
	err := f.db.Write(f.t.Context(), "fake room", func(ctx context.Context, tx *sqlutil.Tx) error {
		f.topic.Append(ctx, tx, key, messageType, message)
		return nil
	})
	if err != nil {
		f.t.Fatal(err)
	}
}

// create makes a room with its creator in it.
func (f *rooms) create(room id.RoomID, creator id.UserID) {
	f.t.Helper()
	f.state(room, creator, "m.room.create", "", kv{"room_version": "10"})
	f.member(room, creator, creator, "join")
	f.state(room, creator, "m.room.power_levels", "", kv{"users": kv{string(creator): 100}})
}

func (f *rooms) api() *api.RoomserverAPI {
	return &api.RoomserverAPI{
		ReadLog: f.topic.Read,
		Heads:   f.topic.Heads,
		QueryEvents: func(_ context.Context, req api.QueryEventsRequest) (res api.QueryEventsResponse, err error) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.calls.events++
			for _, eventID := range req.EventIDs {
				e := f.events[eventID]
				if e == nil || req.RoomID != "" && e.PDU.RoomID() != req.RoomID {
					continue
				}
				now := f.now(e.PDU.RoomID(), req.Viewer.UserID)
				if req.Viewer.UserID == "" || now == "join" || f.members[eventID][req.Viewer.UserID] == "join" {
					res.Events = append(res.Events, *e)
				}
			}
			return res, nil
		},
		QueryAggregations: func(context.Context, api.QueryAggregationsRequest) (res api.QueryAggregationsResponse, err error) {
			return res, nil // what relates to what is the roomserver's to know: test/blackbox has the tests
		},
		QueryState: func(_ context.Context, req api.QueryStateRequest) (res api.QueryStateResponse, err error) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.calls.states++
			for key, event := range f.states[*req.Root] {
				if req.Keys != nil && !slices.Contains(req.Keys, key) {
					continue
				}
				if req.Filter != nil && req.Filter.LazyLoadMembers && key.Type == "m.room.member" && !slices.Contains(req.Members, id.UserID(key.StateKey)) {
					continue
				}
				res.Events = append(res.Events, *f.events[event])
			}
			return res, nil
		},
		QueryStateDiff: func(_ context.Context, req api.QueryStateDiffRequest) (res api.QueryStateDiffResponse, err error) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.calls.diffs++
			from, to := f.states[req.From], f.states[req.To]
			for key, event := range to {
				if from[key] != event {
					res.Changes = append(res.Changes, api.StateChange{Type: key.Type, StateKey: key.StateKey, Old: from[key], New: event})
				}
			}
			for key, event := range from {
				if _, has := to[key]; !has {
					res.Changes = append(res.Changes, api.StateChange{Type: key.Type, StateKey: key.StateKey, Old: event})
				}
			}
			return res, nil
		},
		QueryStrippedState: func(_ context.Context, req api.QueryStrippedStateRequest) (res api.QueryStrippedStateResponse, err error) {
			f.mu.Lock()
			defer f.mu.Unlock()
			for key, event := range f.states[req.Root] {
				if key.Type == "m.room.create" || key.Type == "m.room.name" || key.Type == "m.room.member" && key.StateKey == string(req.UserID) {
					res.State = append(res.State, f.events[event].PDU.Stripped())
				}
			}
			return res, nil
		},
		QueryMembership: func(_ context.Context, req api.QueryMembershipRequest) (api.QueryMembershipResponse, error) {
			f.mu.Lock()
			defer f.mu.Unlock()
			return api.QueryMembershipResponse{RoomExists: f.rooms[req.RoomID] != nil, Membership: f.now(req.RoomID, req.UserID)}, nil
		},
		QueryMemberships: func(_ context.Context, req api.QueryMembershipsRequest) (res api.QueryMembershipsResponse, err error) {
			return res, nil
		},
		QueryRooms: func(_ context.Context, req api.QueryRoomsRequest) (res api.QueryRoomsResponse, err error) {
			f.mu.Lock()
			defer f.mu.Unlock()
			for _, room := range req.RoomIDs {
				s := api.RoomSummary{RoomID: room, Root: f.rooms[room].root}
				for key, event := range f.rooms[room].state {
					switch e := f.events[event].PDU; {
					case key.Type == "m.room.name":
						s.Name = string(e.Content())
					case e.Membership() == "join":
						s.Joined++
					case e.Membership() == "invite":
						s.Invited++
					}
				}
				res.Rooms = append(res.Rooms, s)
			}
			return res, nil
		},
	}
}

func (f *rooms) now(room id.RoomID, user id.UserID) string {
	r := f.rooms[room]
	if r == nil {
		return ""
	}
	e := f.events[r.state[api.StateKeyTuple{Type: "m.room.member", StateKey: string(user)}]]
	if e == nil {
		return ""
	}
	return e.PDU.Membership()
}
