package input

import (
	"context"
	"crypto/sha256"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/roomserver/auth"
	"github.com/matrix-org/dendrite/roomserver/stateres"
	"github.com/matrix-org/dendrite/roomserver/storage"
)

// View is a room as a local input finds it.
type View interface {
	Room() *storage.Room
	// One reads one entry of the current state; nil if it has none.
	One(ctx context.Context, eventType, stateKey string) (*storage.Event, error)
	// State reads several.
	State(ctx context.Context, keys ...auth.Key) (map[auth.Key]*storage.Event, error)
	// Appended tells whether an event is among those that are about to be committed, and so not in the database yet.
	Appended(is func(*pdu.Event) bool) bool
}

// Proto is an event that a local user wants in a room. References, depth and room are filled in.
type Proto struct {
	pdu.Proto
	DeviceID      id.DeviceID
	TransactionID string
}

// Build decides, on the room as it is, which events there should be. It may be called more than once. No events and no
// error mean that there is nothing to do; already, if set, is then the event that answers. It runs in the room's
// worker, and may do so still when Local has returned an error to a caller who has gone: what it writes to its caller's
// variables may be read only if there was no error.
type Build func(ctx context.Context, v View) (protos []Proto, already id.EventID, err error)

// Local puts events of local users into a room. The request key belongs to the first event; it returns that event's id, or that of
// the event which an earlier call with this key made.
func (in *Input) Local(ctx context.Context, roomID id.RoomID, key api.RequestKey, build Build) (id.EventID, error) {
	hash := hashKey(key)
	j := &job{
		run: func(ctx context.Context, d *draft) (any, error) {
			if hash != nil {
				if eventID, has := d.requests.now[string(hash)]; has {
					return eventID, nil
				}
				if eventID, has := in.done.Get(string(hash)); has {
					return eventID, nil
				}
			}
			return in.local(ctx, d, hash, build)
		},
	}
	if hash != nil {
		j.earlier = func(ctx context.Context) (any, error) {
			eventID, err := in.Storage.EventOfRequest(ctx, hash)
			if err != nil || eventID == "" {
				return nil, err
			}
			return eventID, nil
		}
	}
	result, err := in.submit(ctx, roomID, j)
	eventID, _ := result.(id.EventID)
	return eventID, err
}

// hashKey is the form in which request keys are stored: clients choose their length.
func hashKey(key api.RequestKey) []byte {
	if key == "" {
		return nil
	}
	sum := sha256.Sum256([]byte(key))
	return sum[:16]
}

func (in *Input) local(ctx context.Context, d *draft, hash []byte, build Build) (id.EventID, error) {
	if d.room.NID == 0 {
		return "", mxerr.NotFound("there is no room %s here", d.room.ID)
	}
	protos, first, err := build(ctx, d)
	if err != nil {
		return "", err
	}
	for i := range protos {
		key := hash
		if i > 0 {
			key = nil
		}
		e, err := in.add(ctx, d, &protos[i], key)
		if err != nil {
			return "", err
		}
		if i == 0 {
			first = e.PDU.ID()
		}
	}
	if hash != nil && first != "" {
		d.requests.put(string(hash), first)
	}
	return first, nil
}

// add builds, checks and appends one local event.
func (in *Input) add(ctx context.Context, d *draft, p *Proto, key []byte) (*storage.NewEvent, error) {
	p.RoomID = d.room.ID
	if err := d.mustBeJoined(ctx, p); err != nil {
		return nil, err
	}
	if p.OriginServerTS == 0 {
		p.OriginServerTS = time.Now().UnixMilli()
	}
	p.Depth, p.PrevEvents = 1, nil
	used := d.room.Extremities[max(0, len(d.room.Extremities)-pdu.MaxPrevEvents):]
	for _, x := range used {
		p.PrevEvents = append(p.PrevEvents, x.EventID)
		p.Depth = max(p.Depth, min(x.Depth, math.MaxInt64-1)+1)
	}
	authNIDs, err := d.selectAuth(ctx, p)
	if err != nil {
		return nil, err
	}
	event, err := pdu.Build(d.room.Version, p.Proto, in.Signer)
	if err != nil {
		return nil, err
	}
	if err := auth.Check(event, d.current(ctx)); err != nil {
		return nil, err
	}
	nid, err := in.Storage.NewEventNIDs(ctx, 1)
	if err != nil {
		return nil, err
	}
	e := &storage.NewEvent{Event: storage.Event{NID: nid, PDU: event, Root: d.room.Root, Auth: authNIDs, DeviceID: p.DeviceID, TransactionID: p.TransactionID},
		RequestKey: key}
	if err := in.appendAccepted(ctx, d, e); err != nil {
		return nil, err
	}
	d.room.Extremities = append(d.room.Extremities[:len(d.room.Extremities)-len(used)],
		storage.Extremity{NID: nid, EventID: event.ID(), Depth: event.Depth()})
	return e, nil
}

// mustBeJoined refuses what the authorization rules let pass before they ask what the sender is in the room:
// m.room.aliases of old room versions, and members whom a third party's signature invites. Other servers may send
// them, users of this one may not.
func (d *draft) mustBeJoined(ctx context.Context, p *Proto) error {
	if p.StateKey == nil || p.Type != typeAliases && (p.Type != pdu.TypeMember || *p.StateKey == string(p.Sender)) {
		return nil
	}
	member, err := d.One(ctx, pdu.TypeMember, string(p.Sender))
	if err != nil {
		return err
	}
	if member == nil || member.PDU.Membership() != "join" {
		return mxerr.Forbidden("you are not in the room %s", d.room.ID)
	}
	if p.Type != typeAliases {
		return nil // the rules ask for the level
	}
	levels, err := PowerLevels(ctx, d)
	if err != nil {
		return err
	}
	if own, needed := levels.User(p.Sender), levels.Event(typeAliases, true); own < needed {
		return mxerr.Forbidden("%s needs power level %d, yours is %d", typeAliases, needed, own)
	}
	return nil
}

const typeAliases = "m.room.aliases"

// selectAuth fills in the auth events (Server-Server API, § Auth events selection).
func (d *draft) selectAuth(ctx context.Context, p *Proto) ([]stateres.EventNID, error) {
	needed, err := auth.NeededForProto(d.room.Version, p.Proto)
	if err != nil {
		return nil, err
	}
	found, err := d.State(ctx, needed...)
	if err != nil {
		return nil, err
	}
	p.AuthEvents = nil
	var nids []stateres.EventNID
	for _, k := range needed {
		if e := found[k]; e != nil {
			p.AuthEvents = append(p.AuthEvents, e.PDU.ID())
			nids = append(nids, e.NID)
		}
	}
	return nids, nil
}

// appendAccepted appends an event that is based on the current state, so that the state after it is the new current state.
func (in *Input) appendAccepted(ctx context.Context, d *draft, e *storage.NewEvent) error {
	e.Visibility = d.room.Visibility
	redacts, err := in.redact(ctx, d, e)
	if err != nil {
		return err
	}
	k, isState := keyOf(e.PDU)
	if !isState {
		d.append(e, d.room.Root, nil, nil)
	} else {
		replaced, err := d.State(ctx, k)
		if err != nil {
			return err
		}
		after, err := d.stateWith(ctx, d.room.Root, &e.Event)
		if err != nil {
			return fmt.Errorf("state after %s: %w", e.PDU.ID(), err)
		}
		d.append(e, after, []api.StateChange{change(k, replaced[k], &e.Event)}, map[auth.Key]*storage.Event{k: &e.Event})
	}
	e.Output.Redacts = redacts
	return nil
}

// Create makes a room. protos are its first events, the create event first; also runs in the transaction that makes it. The request
// key belongs to the room: a repeated call returns the first one's room.
func (in *Input) Create(ctx context.Context, version id.RoomVersion, roomID id.RoomID, key api.RequestKey, protos []Proto,
	also func(ctx context.Context, tx *sqlutil.Tx, room *storage.Room) error) (id.RoomID, error) {
	hash := hashKey(key)
	if hash != nil {
		if earlier, err := in.Storage.RoomOfRequest(ctx, hash); err != nil || earlier != "" {
			return earlier, err
		}
	}
	for attempt := 1; ; attempt++ {
		created, err := in.create(ctx, version, roomID, hash, protos, also)
		if err == nil {
			return created, nil
		}
		// The failure may be that another call with this request key, or an earlier commit of this one, was first.
		if hash != nil {
			if earlier, readErr := in.Storage.RoomOfRequest(ctx, hash); readErr == nil && earlier != "" {
				return earlier, nil
			}
		}
		if !sqlutil.IsUniqueViolation(err) || attempt == createAttempts {
			return "", fmt.Errorf("create room: %w", err)
		}
		// A room whose id is the hash of its create event is the same one as another that its creator has made alike at the same
		// moment. So this one was made a moment before, and the longer before the more there are.
		protos[0].OriginServerTS -= 1 + rand.Int64N(50<<attempt)
	}
}

func (in *Input) create(ctx context.Context, version id.RoomVersion, roomID id.RoomID, hash []byte, protos []Proto,
	also func(ctx context.Context, tx *sqlutil.Tx, room *storage.Room) error) (id.RoomID, error) {
	nid, err := in.Storage.NewRoomNID(ctx)
	if err != nil {
		return "", err
	}
	d := in.newDraft(&storage.Room{NID: nid, ID: roomID, Version: version, Last: api.OrderKey{Segment: 1}})
	d.isNew, d.summary = true, true
	keys, err := keysOf(protos)
	if err != nil {
		return "", err
	}
	if _, err := d.numberKeys(ctx, keys); err != nil {
		return "", err
	}
	for i := range protos {
		e, err := in.add(ctx, d, &protos[i], nil)
		if err != nil {
			return "", err
		}
		if i == 0 {
			d.room.ID = e.PDU.RoomID() // of a room whose id is the hash of this event
			e.Output.RoomID = d.room.ID
		}
	}
	d.also = append(d.also, func(ctx context.Context, tx *sqlutil.Tx) error {
		if hash != nil {
			if err := in.Storage.InsertRequest(ctx, tx, hash, d.room.ID, time.Now().UnixMilli()); err != nil {
				return err
			}
		}
		return also(ctx, tx, &d.room)
	})
	return d.room.ID, in.commit(ctx, d)
}

// keysOf are the state keys of events that are not built yet. What no event may have is refused, as it is when they are
// built.
func keysOf(protos []Proto) ([]auth.Key, error) {
	var keys []auth.Key
	for i := range protos {
		if p := &protos[i]; p.StateKey != nil {
			if err := pdu.CheckKeys(p.Type, *p.StateKey); err != nil {
				return nil, err
			}
			keys = append(keys, auth.Key{Type: p.Type, StateKey: *p.StateKey})
		}
	}
	return keys, nil
}

// RoomOfRequest is the room that an earlier Create with this request key made; empty if there was none.
func (in *Input) RoomOfRequest(ctx context.Context, key api.RequestKey) (id.RoomID, error) {
	hash := hashKey(key)
	if hash == nil {
		return "", nil
	}
	return in.Storage.RoomOfRequest(ctx, hash)
}
