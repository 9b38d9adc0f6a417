package interest

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/matrix-org/dendrite/appservice/storage"
	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/registration"
	"github.com/matrix-org/dendrite/common/sqlutil"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
)

const memberType = "m.room.member"

// batch is some consecutive records of a partition.
type batch struct {
	j *Judge
	*wanted
	partition int32
	followed  eventlog.Followed
	nowMS     int64
	timeMS    int64 // when the record at hand was committed

	rooms  map[id.RoomID]*room
	events []storage.Event
}

// room is one whose records are in a batch.
type room struct {
	kept
	counted bool            // Users is right for the namespaces that are in force
	before  kept            // as it was before the batch
	anew    bool            // it was counted anew
	moved   []id.UserID     // whose membership has changed
	root    roomserver.Root // the state after the last record
	aliases []id.RoomAlias
	asked   bool // whether aliases is known
}

// load gets what is known of rooms, from memory or, for the others, from the database.
func (b *batch) load(ctx context.Context, named []id.RoomID) error {
	var missing []id.RoomID
	for _, roomID := range named {
		k, has := b.j.rooms.Get(roomID)
		if !has || k.streak != b.followed.Streak {
			missing = append(missing, roomID)
			continue
		}
		b.add(roomID, k)
	}
	if len(missing) == 0 {
		return nil
	}
	var found map[id.RoomID]*storage.Room
	err := b.j.Store.DB.Read(ctx, "interest in rooms", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
		found, err = b.j.Store.Rooms(ctx, tx, missing)
		return err
	})
	if err != nil {
		return fmt.Errorf("interest of application services: %w", err)
	}
	for _, roomID := range missing {
		k := kept{Room: storage.Room{RoomID: roomID}, streak: b.followed.Streak}
		if r := found[roomID]; r != nil {
			k.Room = *r
		}
		b.add(roomID, k)
	}
	return nil
}

func (b *batch) add(roomID id.RoomID, k kept) {
	r := &room{kept: k, before: k, counted: k.Namespaces == b.namespaces}
	r.Users = maps.Clone(k.Users)
	if r.Users == nil {
		r.Users = make(map[string]int64)
	}
	b.rooms[roomID] = r
}

// count counts the users of all services in a room, as it is before a record.
func (b *batch) count(ctx context.Context, r *room, root roomserver.Root) error {
	r.counted, r.anew, r.Namespaces = true, true, b.namespaces
	clear(r.Users)
	if root == (roomserver.Root{}) || b.set.Empty() {
		return nil
	}
	members, err := b.j.Room.QueryServerMembers(ctx, roomserver.QueryServerMembersRequest{RoomID: r.RoomID,
		Root: root, Server: b.j.Server})
	if err != nil {
		return fmt.Errorf("members of %s: %w", r.RoomID, err)
	}
	for _, user := range members.Users {
		for _, service := range b.set.Users(user) {
			r.Users[service.ID]++
		}
	}
	return nil
}

// event queues an event for those who are interested in it, and counts who is in the room after it.
func (b *batch) event(ctx context.Context, o *roomserver.OutputEvent) error {
	r := b.rooms[o.RoomID]
	if !r.counted || o.RootBefore == (roomserver.Root{}) && len(r.Users) > 0 {
		if err := b.count(ctx, r, o.RootBefore); err != nil {
			return err
		}
	}
	r.root = o.RootAfter
	if b.set.Empty() {
		return nil
	}
	var to recipients
	to.addUsers(b.set, r.Users)
	var target id.UserID
	for i := range o.Changes {
		if c := &o.Changes[i]; c.Type == memberType && c.OldMembership != c.NewMembership {
			b.move(r, id.UserID(c.StateKey), c.OldMembership, c.NewMembership)
		}
	}
	if o.SoftFailed || o.Backfilled {
		return nil
	}
	to.addUsers(b.set, r.Users)
	to.add(b.set.Users(o.Event.Sender()))
	if stateKey, is := o.Event.StateKey(); is && o.Event.Type() == memberType {
		target = id.UserID(stateKey)
		to.add(b.set.Users(target))
	}
	if err := b.addOfRoom(ctx, &to, r); err != nil {
		return err
	}
	if len(to) == 0 {
		return nil
	}
	invite, err := b.stripped(ctx, o, target)
	if err != nil {
		return err
	}
	for _, service := range to {
		e := storage.Event{RoomID: o.RoomID, EventID: o.Event.ID()}
		if invite != nil && b.set.Owns(service, target) {
			e.Invite = invite
		}
		b.queue(service, e)
	}
	return nil
}

// move counts the change of a membership.
func (b *batch) move(r *room, user id.UserID, from, to string) {
	r.moved = append(r.moved, user)
	change := int64(0)
	if to == "join" {
		change++
	}
	if from == "join" {
		change--
	}
	if change == 0 {
		return
	}
	for _, service := range b.set.Users(user) {
		if r.Users[service.ID] += change; r.Users[service.ID] <= 0 {
			delete(r.Users, service.ID)
		}
	}
}

// invite queues an invite or knock of a room that this server is not in, or its end.
func (b *batch) invite(o *roomserver.OutputInvite) {
	if o.Event == nil {
		return
	}
	var to recipients
	to.add(b.set.Users(o.UserID))
	to.add(b.set.Users(o.Event.Sender()))
	to.add(b.set.Rooms(o.RoomID))
	for _, service := range to {
		b.queue(service, storage.Event{RoomID: o.RoomID, EventID: o.Event.ID(),
			Invite: &storage.Invite{Event: o.Event, RoomVersion: o.RoomVersion, State: o.StrippedState}})
	}
}

// queue adds an event to those that will wait for a service.
func (b *batch) queue(service *registration.Registration, e storage.Event) {
	if b.timeMS < b.j.Registered(service.ID)-skew.Milliseconds() {
		return
	}
	e.Service, e.QueuedMS = service.ID, b.nowMS
	b.events = append(b.events, e)
}

// addOfRoom adds the services that have the room, or an alias of it, in a namespace. The log does not tell of
// aliases: they are asked for once in each batch, so that an event that was sent after an alias was set always finds
// it.
func (b *batch) addOfRoom(ctx context.Context, to *recipients, r *room) error {
	to.add(b.set.Rooms(r.RoomID))
	if !b.aliases {
		return nil
	}
	if !r.asked {
		found, err := b.j.Room.QueryRoomAliases(ctx, roomserver.QueryRoomAliasesRequest{RoomID: r.RoomID})
		if err != nil {
			return fmt.Errorf("aliases of %s: %w", r.RoomID, err)
		}
		r.aliases, r.asked = found.Aliases, true
	}
	for _, alias := range r.aliases {
		to.add(b.set.Aliases(alias))
	}
	return nil
}

// stripped is the stripped state for the invite or knock of a service's user; nil for other events.
func (b *batch) stripped(ctx context.Context, o *roomserver.OutputEvent, target id.UserID) (*storage.Invite, error) {
	if m := o.Event.Membership(); m != "invite" && m != "knock" || len(b.set.Users(target)) == 0 {
		return nil, nil
	}
	found, err := b.j.Room.QueryStrippedState(ctx, roomserver.QueryStrippedStateRequest{RoomID: o.RoomID,
		Root:   o.RootAfter,
		UserID: target, Sender: o.Event.Sender()})
	if err != nil {
		return nil, fmt.Errorf("stripped state of %s: %w", o.RoomID, err)
	}
	return &storage.Invite{State: found.State}, nil
}

// apply writes what the batch has found.
func (b *batch) apply(ctx context.Context, tx *sqlutil.Tx) error {
	for _, roomID := range slices.Sorted(maps.Keys(b.rooms)) {
		r := b.rooms[roomID]
		var changed []string
		for service, users := range r.Users {
			if r.before.Users[service] != users {
				changed = append(changed, service)
			}
		}
		for service := range r.before.Users {
			if _, has := r.Users[service]; !has {
				changed = append(changed, service)
			}
		}
		if !r.anew && len(changed) == 0 {
			continue
		}
		if err := b.j.Store.PutRoom(ctx, tx, &r.Room, r.anew, changed); err != nil {
			return err
		}
	}
	if err := b.tellRooms(ctx, tx); err != nil {
		return err
	}
	if err := b.j.Store.Queue(ctx, tx, slices.Clone(b.events), b.nowMS); err != nil {
		return err
	}
	tx.AfterCommit(b.committed)
	tx.OnRollback(b.forget)
	return nil
}

// committed keeps the rooms in memory, and tells for whom something waits.
func (b *batch) committed() {
	for roomID, r := range b.rooms {
		b.j.rooms.Add(roomID, r.kept)
	}
	b.j.streaks.Follow(b.partition, b.followed)
	var services []string
	for i := range b.events {
		if service := b.events[i].Service; !slices.Contains(services, service) {
			services = append(services, service)
		}
	}
	if len(services) > 0 {
		b.j.Queued(services)
	}
}

// forget makes the next batch read the rooms: another replica may follow the partition now.
func (b *batch) forget() {
	for roomID := range b.rooms {
		b.j.rooms.Remove(roomID)
	}
}

// tellRooms tells RoomsChanged what the batch has changed.
func (b *batch) tellRooms(ctx context.Context, tx *sqlutil.Tx) error {
	if b.j.RoomsChanged == nil {
		return nil
	}
	var users []storage.ServiceUser
	var rooms []storage.ServiceRoom
	for roomID, r := range b.rooms {
		for _, service := range b.set.All() {
			was, is := r.before.Users[service.ID] > 0, r.Users[service.ID] > 0
			if !service.Encryption || service.URL == "" || !was && !is {
				continue
			}
			if was != is {
				rooms = append(rooms, storage.ServiceRoom{Service: service.ID, RoomID: roomID, Root: r.root})
			}
			for _, user := range r.moved {
				if !b.set.Owns(service, user) {
					users = append(users, storage.ServiceUser{Service: service.ID, UserID: user})
				}
			}
		}
	}
	if len(users)+len(rooms) == 0 {
		return nil
	}
	return b.j.RoomsChanged(ctx, tx, users, rooms)
}

// recipients are services, each once.
type recipients []*registration.Registration

func (to *recipients) add(services []*registration.Registration) {
	for _, service := range services {
		if service.URL != "" && !slices.Contains(*to, service) {
			*to = append(*to, service)
		}
	}
}

func (to *recipients) addUsers(set *registration.Set, users map[string]int64) {
	for service := range users {
		if r := set.ByID(service); r != nil && r.URL != "" && !slices.Contains(*to, r) {
			*to = append(*to, r)
		}
	}
}
