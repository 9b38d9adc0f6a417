package input

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"time"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/roomserver/state"
	"github.com/matrix-org/dendrite/roomserver/storage"
)

// errRaced says that another writer has changed the room since the draft began.
var errRaced = errors.New("the room has changed meanwhile")

// commitBatch makes a draft of a batch and commits it. A batch that fails is run one input at a time, so that one of them cannot
// fail the others.
func (in *Input) commitBatch(ctx context.Context, roomID id.RoomID, batch []*job) {
	if len(batch) > 1 && in.tryBatch(ctx, roomID, batch) == nil {
		return
	}
	for _, j := range batch {
		if len(batch) > 1 && j.gone() {
			continue
		}
		if err := in.tryOne(ctx, roomID, j); err != nil {
			j.result, j.err = nil, err
		}
	}
}

// tryOne commits one input. What is there already (sqlutil.IsUniqueViolation) is the event of an earlier call with the same request
// key, or the number of a state key that another writer took at the same moment: then the next attempt uses that.
func (in *Input) tryOne(ctx context.Context, roomID id.RoomID, j *job) error {
	for attempt := 1; ; attempt++ {
		err := in.tryBatch(ctx, roomID, []*job{j})
		if err == nil || !sqlutil.IsUniqueViolation(err) {
			return err
		}
		if j.earlier != nil {
			if result, earlierErr := j.earlier(ctx); earlierErr == nil && result != nil {
				j.result, j.err = result, nil
				return nil
			}
		}
		if attempt == uniqueAttempts {
			return err
		}
	}
}

// tryBatch makes drafts until one is committed, or time is up: of those who race for a room one always wins, so all get their turn.
func (in *Input) tryBatch(ctx context.Context, roomID id.RoomID, batch []*job) error {
	for attempt := 1; ; attempt++ {
		err := in.draftAndCommit(ctx, roomID, batch)
		if err == nil || !errors.Is(err, errRaced) && !errors.Is(err, sqlutil.ErrCommitUnknown) {
			return err
		}
		in.Reader.Forget(roomID)
		in.known.Remove(roomID)
		select {
		case <-ctx.Done():
			return fmt.Errorf("room %s: %w", roomID, errors.Join(err, ctx.Err()))
		case <-time.After(time.Duration(rand.Int64N(int64(min(attempt, maxBackoff)) * int64(4*time.Millisecond)))):
		}
	}
}

func (in *Input) draftAndCommit(ctx context.Context, roomID id.RoomID, batch []*job) error {
	room, err := in.Reader.Room(ctx, roomID)
	if err != nil {
		return err
	}
	if room == nil {
		room = &storage.Room{ID: roomID} // for inputs that do not need one; NID 0 says that there is none
	}
	d := in.newDraft(room)
	for _, j := range batch {
		before := d.mark()
		if j.result, j.err = runJob(ctx, d, j); j.err != nil {
			d.undo(before)
			in.maybeEarlier(ctx, j)
		}
	}
	if d.empty() {
		if room.NID != 0 {
			in.known.Add(room.ID, d.base) // it may have grown
		}
		in.answered(d)
		return nil
	}
	return in.commit(ctx, d)
}

// runJob runs an input. A panic becomes its error: it must not end the process, which serves all other rooms.
func runJob(ctx context.Context, d *draft, j *job) (result any, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic in an input of room %s: %v\n%s", d.room.ID, p, debug.Stack())
		}
	}()
	return j.run(ctx, d)
}

// maybeEarlier looks for the result of an earlier call where this one is refused: the room may have changed because of that very
// call, or since.
func (in *Input) maybeEarlier(ctx context.Context, j *job) {
	if _, refused := mxerr.As(j.err); j.earlier == nil || !refused {
		return
	}
	if result, err := j.earlier(ctx); err == nil && result != nil {
		j.result, j.err = result, nil
	}
}

// commit writes a draft. On a commit whose outcome is unknown, the version of the room's row is the witness.
func (in *Input) commit(ctx context.Context, d *draft) error {
	var summary *api.RoomSummary
	if d.summary {
		entries, err := d.State(ctx, state.SummaryKeys()...)
		if err != nil {
			return err
		}
		summary = state.Summarize(entries)
	}
	err := in.Storage.DB.Write(ctx, "room events", func(ctx context.Context, tx *sqlutil.Tx) error { return in.write(ctx, tx, d, summary) })
	if errors.Is(err, sqlutil.ErrCommitUnknown) {
		if room, readErr := in.Storage.Room(ctx, d.room.ID); readErr == nil && room != nil && room.RowVersion == d.room.RowVersion {
			err = nil
		}
	}
	if err != nil {
		in.Reader.Forget(d.room.ID)
		in.known.Remove(d.room.ID)
		return err
	}
	in.committed(d)
	return nil
}

func (in *Input) write(ctx context.Context, tx *sqlutil.Tx, d *draft, summary *api.RoomSummary) error {
	s := in.Storage
	if d.isNew {
		if err := s.InsertRoom(ctx, tx, &d.room); err != nil {
			return err
		}
	} else if d.room.NID != 0 {
		same, err := s.UpdateRoom(ctx, tx, d.old, &d.room)
		if err != nil {
			return err
		}
		if !same {
			return errRaced
		}
	}
	if err := s.InsertKeys(ctx, tx, d.keys.now); err != nil {
		return err
	}
	if err := s.InsertNodes(ctx, tx, d.room.NID, d.nodes); err != nil {
		return err
	}
	if err := s.PutMemberships(ctx, tx, d.room.NID, slices.Collect(maps.Values(d.members.now))); err != nil {
		return err
	}
	if summary != nil {
		if !d.isNew && summary.GuestAccess != api.GuestsCanJoin {
			if err := s.NoteGuestsOut(ctx, tx, d.room.NID); err != nil {
				return err
			}
		}
		if err := s.PutSummary(ctx, tx, d.room.NID, summary); err != nil {
			return err
		}
	}
	if err := in.writeAside(ctx, tx, d); err != nil {
		return err
	}
	for _, fn := range d.also {
		if err := fn(ctx, tx); err != nil {
			return err
		}
	}
	for _, e := range d.events {
		in.Topic.Append(ctx, tx, string(d.room.ID), api.TypeEvent, e)
	}
	return nil
}

func (in *Input) writeAside(ctx context.Context, tx *sqlutil.Tx, d *draft) error {
	s := in.Storage
	if len(d.replaced) > 0 {
		if err := s.DeleteAside(ctx, tx, d.replaced); err != nil {
			return err
		}
	}
	if len(d.aside) > 0 {
		if err := s.InsertAside(ctx, tx, d.aside); err != nil {
			return err
		}
	}
	for _, r := range d.redacting {
		if err := s.Redact(ctx, tx, r.target.NID, r.redaction, r.target.PDU, r.related); err != nil {
			return err
		}
	}
	if len(d.pending) > 0 {
		if err := s.AddPendingRedactions(ctx, tx, d.room.NID, d.pending); err != nil {
			return err
		}
	}
	if len(d.settled) > 0 {
		if err := s.RemovePendingRedactions(ctx, tx, d.room.NID, d.settled); err != nil {
			return err
		}
	}
	if len(d.stage) > 0 {
		if err := s.Stage(ctx, tx, d.stage, maxStaged); err != nil {
			return err
		}
	}
	if len(d.unstage) > 0 {
		return s.Unstage(ctx, tx, d.unstage)
	}
	return nil
}

// committed brings the caches to what is in the database now.
func (in *Input) committed(d *draft) {
	room := d.room
	if room.NID != 0 {
		in.Reader.Committed(&room, d.isNew)
	}
	for _, e := range d.events {
		stored := e.Event // without what only the log needs
		in.Reader.Stored(&stored)
		if k, is := keyOf(stored.PDU); is && d.changed.now[k] == &e.Event {
			d.changed.put(k, &stored)
		}
	}
	for _, e := range d.aside {
		in.Reader.Stored(&e.Event)
	}
	in.Reader.Stored(d.redacted...)
	d.base.version, d.base.root = room.RowVersion, room.Root
	for k, e := range d.changed.now {
		d.base.put(k, e)
	}
	in.known.Add(room.ID, d.base)
	in.answered(d)
}

// answered remembers what answers the requests of a draft.
func (in *Input) answered(d *draft) {
	for key, eventID := range d.requests.now {
		in.done.Add(key, eventID)
	}
}
