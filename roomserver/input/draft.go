package input

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/roomserver/auth"
	"github.com/matrix-org/dendrite/roomserver/state"
	"github.com/matrix-org/dendrite/roomserver/stateres"
	"github.com/matrix-org/dendrite/roomserver/statetrie"
	"github.com/matrix-org/dendrite/roomserver/storage"
)

// draft is a room as it will be when the transaction that the draft becomes is committed.
type draft struct {
	in   *Input
	room storage.Room
	// old is the version of the row that the draft began from; isNew says that there was none.
	old   int64
	isNew bool
	// base is the state that the draft began from, as far as it is in memory; changed is what differs from it.
	base    *known
	changed undoable[auth.Key, *storage.Event]

	events    []*storage.NewEvent
	aside     []*storage.NewEvent
	replaced  []stateres.EventNID // outliers that are stored anew
	byID      undoable[id.EventID, *storage.Event]
	nodes     []statetrie.Node
	overlay   *statetrie.Trie // reads the first overlaid of the nodes too
	overlaid  int
	keys      undoable[auth.Key, statetrie.KeyNID]
	members   undoable[id.UserID, storage.Membership]
	summary   bool // to be written anew
	redacted  []*storage.Event
	redacting []redaction
	pending   []storage.PendingRedaction
	settled   []id.EventID // targets that have come, whose redactions wait no more
	stage     []storage.Staged
	unstage   []id.EventID
	requests  undoable[string, id.EventID]
	also      []func(context.Context, *sqlutil.Tx) error
}

// redaction is a redaction with its target, in its redacted form.
type redaction struct {
	target    *storage.Event
	redaction id.EventID
	related   bool // the target related to another event
}

func (in *Input) newDraft(room *storage.Room) *draft {
	d := &draft{in: in, room: *room, old: room.RowVersion, changed: newUndoable[auth.Key, *storage.Event](),
		byID: newUndoable[id.EventID, *storage.Event](), keys: newUndoable[auth.Key, statetrie.KeyNID](),
		members: newUndoable[id.UserID, storage.Membership](), requests: newUndoable[string, id.EventID]()}
	d.room.RowVersion = rand.Int64()
	d.room.Extremities = slices.Clone(room.Extremities)
	if k, has := in.known.Get(room.ID); has && k.version == room.RowVersion {
		d.base = k
	} else {
		d.base = newKnown(room)
	}
	return d
}

// mark is a copy of the draft for an input that fails, which is undone by going back to it. What the copy shares with
// the draft only grows, or can go back by itself.
func (d *draft) mark() draft {
	c := *d
	c.room.Extremities = slices.Clone(d.room.Extremities)
	c.events, c.aside, c.replaced, c.nodes = slices.Clip(d.events), slices.Clip(d.aside), slices.Clip(d.replaced), slices.Clip(d.nodes)
	c.redacted, c.redacting, c.pending, c.settled = slices.Clip(d.redacted), slices.Clip(d.redacting), slices.Clip(d.pending), slices.Clip(d.settled)
	c.stage, c.unstage, c.also = slices.Clip(d.stage), slices.Clip(d.unstage), slices.Clip(d.also)
	return c
}

// undo goes back to a mark. What base has learnt since is kept: it is as true as before.
func (d *draft) undo(to draft) {
	d.changed.undo(to.changed)
	d.byID.undo(to.byID)
	d.keys.undo(to.keys)
	d.members.undo(to.members)
	d.requests.undo(to.requests)
	base := d.base
	*d = to
	d.base = base
}

// trie is the room's states, those of the draft included.
func (d *draft) trie() (*statetrie.Trie, error) {
	if d.overlay == nil {
		d.overlay = d.in.Reader.Trie(d.room.NID)
	}
	// What an undone input has left there does no harm: a node is named by its content.
	err := d.overlay.Include(d.nodes[d.overlaid:])
	d.overlaid = len(d.nodes)
	return d.overlay, err
}

// update changes a state.
func (d *draft) update(ctx context.Context, root api.Root, changes []statetrie.Entry) (api.Root, error) {
	trie, err := d.trie()
	if err != nil {
		return root, err
	}
	root, nodes, err := trie.Update(ctx, root, changes)
	d.nodes = append(d.nodes, nodes...)
	return root, err
}

// empty tells whether there is nothing to commit.
func (d *draft) empty() bool {
	return len(d.events)+len(d.aside)+len(d.stage)+len(d.unstage)+len(d.also) == 0
}

// Room is the room as the draft has it.
func (d *draft) Room() *storage.Room { return &d.room }

// Appended is of the View.
func (d *draft) Appended(is func(*pdu.Event) bool) bool {
	return slices.ContainsFunc(d.events, func(e *storage.NewEvent) bool { return is(e.PDU) })
}

// State reads entries of the current state, as the draft has it. Those that it does not have are nil.
func (d *draft) State(ctx context.Context, keys ...auth.Key) (map[auth.Key]*storage.Event, error) {
	found := make(map[auth.Key]*storage.Event, len(keys))
	var missing []auth.Key
	for _, k := range keys {
		if e, has := d.changed.now[k]; has {
			found[k] = e
		} else if e, has := d.base.entries[k]; has {
			found[k] = e
		} else if _, isNew := d.keys.now[k]; isNew || d.base.root.IsZero() {
			found[k] = nil // no state has ever had it, or the draft began from none
		} else {
			missing = append(missing, k)
		}
	}
	if len(missing) == 0 {
		return found, nil
	}
	read, err := d.in.Reader.Get(ctx, d.room.NID, d.base.root, missing)
	if err != nil {
		return nil, err
	}
	for _, k := range missing {
		found[k] = read[k]
		d.base.put(k, read[k])
	}
	return found, nil
}

// One reads one entry of the current state; nil if it has none.
func (d *draft) One(ctx context.Context, eventType, stateKey string) (*storage.Event, error) {
	k := auth.Key{Type: eventType, StateKey: stateKey}
	found, err := d.State(ctx, k)
	return found[k], err
}

// authState is a state for auth.Check.
type authState func(auth.Key) (*storage.Event, error)

// Get makes it an auth.State.
func (s authState) Get(k auth.Key) (*pdu.Event, error) {
	e, err := s(k)
	if err != nil || e == nil {
		return nil, err
	}
	return e.PDU, nil
}

// current is the draft's current state for checks.
func (d *draft) current(ctx context.Context) authState {
	return func(k auth.Key) (*storage.Event, error) {
		found, err := d.State(ctx, k)
		return found[k], err
	}
}

// keyNID is the number of a state key, a new one if need be.
func (d *draft) keyNID(ctx context.Context, k auth.Key) (statetrie.KeyNID, error) {
	if nid, has := d.keys.now[k]; has {
		return nid, nil
	}
	found, err := d.numberKeys(ctx, []auth.Key{k})
	return found[k], err
}

// numberKeys finds the numbers of state keys, with one question for all, and takes new ones for those that have none.
func (d *draft) numberKeys(ctx context.Context, wanted []auth.Key) (map[auth.Key]statetrie.KeyNID, error) {
	found, err := d.in.Storage.KeyNIDs(ctx, wanted)
	if err != nil {
		return nil, fmt.Errorf("state keys: %w", err)
	}
	for _, k := range wanted {
		if _, has := found[k]; has {
			continue
		}
		if found[k], err = d.in.Storage.NewKeyNID(ctx, k); err != nil {
			return nil, fmt.Errorf("state keys: %w", err)
		}
		d.keys.put(k, found[k])
	}
	return found, nil
}

// stateWith is a state with one entry more, or replaced.
func (d *draft) stateWith(ctx context.Context, root api.Root, e *storage.Event) (api.Root, error) {
	k, is := keyOf(e.PDU)
	if !is {
		return root, nil
	}
	nid, err := d.keyNID(ctx, k)
	if err != nil {
		return root, err
	}
	return d.update(ctx, root, []statetrie.Entry{{Key: nid, Event: e.NID}})
}

func keyOf(e *pdu.Event) (auth.Key, bool) {
	stateKey, is := e.StateKey()
	return auth.Key{Type: e.Type(), StateKey: stateKey}, is
}

// append puts an event at the end of the room's timeline, with the changes of the current state that it brings. Its root and
// visibility are set already.
func (d *draft) append(e *storage.NewEvent, after api.Root, changes []api.StateChange, replacing map[auth.Key]*storage.Event) {
	before := d.room.Root
	d.room.Root = after
	d.room.Last = api.OrderKey{Segment: d.room.Last.Segment, Index: d.room.Last.Index + 1}
	e.RoomNID, e.InTimeline, e.Order = d.room.NID, true, d.room.Last
	for k, entry := range replacing {
		d.note(k, entry)
	}
	e.Output = &api.OutputEvent{
		RoomID: d.room.ID, RoomVersion: d.room.Version, Event: e.PDU, Order: e.Order, RootBefore: before, RootAfter: after, StateRoot: e.Root,
		Changes: changes, SoftFailed: e.Outcome == storage.SoftFailed, Visibility: e.Visibility.String(),
		DeviceID: e.DeviceID, TransactionID: e.TransactionID,
	}
	for _, c := range changes {
		d.count(c)
	}
	e.Output.Joined, e.Output.Invited = d.room.Joined, d.room.Invited
	d.events = append(d.events, e)
	d.byID.put(e.PDU.ID(), &e.Event)
}

// count keeps the tables of memberships and the counts of members in step with the current state.
func (d *draft) count(c api.StateChange) {
	if c.Type != pdu.TypeMember {
		return
	}
	by := map[string]*int64{"join": &d.room.Joined, "invite": &d.room.Invited}
	if n := by[c.OldMembership]; n != nil {
		*n--
	}
	if n := by[c.NewMembership]; n != nil {
		*n++
	}
	user := id.UserID(c.StateKey)
	d.members.put(user,
		storage.Membership{UserID: user, Membership: c.NewMembership, EventID: c.New, Order: d.room.Last})
}

// note puts an entry of the new current state into the draft; nil removes it.
func (d *draft) note(k auth.Key, e *storage.Event) {
	d.changed.put(k, e)
	if k.Type == typeHistoryVisibility && k.StateKey == "" {
		var body *pdu.Event
		if e != nil {
			body = e.PDU
		}
		d.room.Visibility = visibilityOf(body)
	}
	if k.StateKey == "" && state.InSummary(k.Type) {
		d.summary = true
	}
}

const typeHistoryVisibility = "m.room.history_visibility"

// visibilityOf reads m.room.history_visibility, which may be nil.
func visibilityOf(e *pdu.Event) storage.Visibility {
	if e == nil {
		return storage.Shared
	}
	return storage.ParseVisibility(state.ContentString(e, "history_visibility"))
}
