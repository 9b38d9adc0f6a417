package storage

import (
	"context"
	"database/sql"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"unsafe"

	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/roomserver/stateres"
)

// Outcome is what became of an event when it was checked.
type Outcome int64

// The outcomes. An outlier was accepted by its auth events alone; its place in the room is not known.
const (
	Accepted Outcome = iota
	SoftFailed
	Rejected
	Outlier
	RejectedOutlier
)

// Flags of events.
const (
	flagBackfilled = 1 << iota
	flagRedacts    // it is a redaction that took effect
)

// Event is an event's row. It is shared and only read.
type Event struct {
	NID           stateres.EventNID
	RoomNID       int64
	PDU           *pdu.Event
	Outcome       Outcome
	InTimeline    bool
	Order         api.OrderKey
	Root          api.Root // the state before it
	Visibility    Visibility
	Auth          []stateres.EventNID
	RedactedBy    id.EventID
	DeviceID      id.DeviceID
	TransactionID string
}

// Size is the memory that an event takes, in bytes, about.
func (e *Event) Size() int {
	return int(unsafe.Sizeof(*e)) + e.PDU.Size() + len(e.Auth)*int(unsafe.Sizeof(e.NID)) +
		len(e.RedactedBy) + len(e.DeviceID) + len(e.TransactionID)
}

// NewEvent is an event that is put into the log.
type NewEvent struct {
	Event
	RequestKey []byte
	Output     *api.OutputEvent
}

// LogValue is what those who follow the log get.
func (e *NewEvent) LogValue() any { return e.Output }

type events struct {
	insert      *sqlutil.Insert
	insertDelta *sqlutil.Insert
	deleteAside *sqlutil.Stmt
	byIDs       *sqlutil.Stmt
	byNIDs      *sqlutil.Stmt
	nids        *sqlutil.Stmt
	byRequest   *sqlutil.Stmt
	redact      *sqlutil.Stmt
	readLog     *sqlutil.Stmt
	forward     *sqlutil.Stmt
	backward    *sqlutil.Stmt
	pend        *sqlutil.Insert
	pending     *sqlutil.Stmt
	unpend      *sqlutil.Stmt
	after       *sqlutil.Stmt
	before      *sqlutil.Stmt
}

const eventColumns = `e.nid, e.room_nid, e.event_id, e.seg, e.idx, e.outcome, e.root, e.visibility, e.auth, e.redacted_by, e.device_id, e.txn_id, r.version, r.room_id, e.json`

func newEvents(db *sqlutil.DB) events {
	from := ` FROM roomserver_events e JOIN roomserver_rooms r ON r.nid = e.room_nid `
	return events{
		insert: db.Insert("roomserver_events", []string{"nid", "room_nid", "event_id", "part", "seq", "seg", "idx", "outcome", "flags", "root",
			"visibility", "joined", "invited", "auth", "redacted_by", "request_key", "device_id", "txn_id", "logged", "trace", "sent", "json"}, ""),
		insertDelta: db.Insert("roomserver_deltas", []string{"event_nid", "root_before", "root_after", "changes"}, ""),
		deleteAside: db.Stmt(`DELETE FROM roomserver_events WHERE nid = ANY($1) AND part IS NULL`),
		byIDs:       db.Stmt(`SELECT ` + eventColumns + from + `WHERE e.event_id = ANY($1)`),
		byNIDs:      db.Stmt(`SELECT ` + eventColumns + from + `WHERE e.nid = ANY($1)`),
		nids:        db.Stmt(`SELECT event_id, nid, room_nid, outcome FROM roomserver_events WHERE event_id = ANY($1)`),
		byRequest:   db.Stmt(`SELECT event_id FROM roomserver_events WHERE request_key = $1`),
		redact:      db.Stmt(`UPDATE roomserver_events SET redacted_by = $2, json = $3 WHERE nid = $1`),
		readLog: db.Stmt(`SELECT e.seq, e.logged, e.trace, e.flags, e.joined, e.invited, r.room_id, d.root_before, d.root_after, d.changes, ` + eventColumns + from +
			`LEFT JOIN roomserver_deltas d ON d.event_nid = e.nid WHERE e.part = $1 AND e.seq >= $2 ORDER BY e.seq LIMIT $3`),
		forward: db.Stmt(`SELECT e.nid, e.redacted_by FROM roomserver_events e WHERE e.room_nid = $1 AND (e.seg, e.idx) > ($2, $3) AND (e.seg, e.idx) <= ($4, $5)
			ORDER BY e.seg, e.idx LIMIT $6`),
		backward: db.Stmt(`SELECT e.nid, e.redacted_by FROM roomserver_events e WHERE e.room_nid = $1 AND (e.seg, e.idx) <= ($2, $3) AND (e.seg, e.idx) > ($4, $5)
			ORDER BY e.seg DESC, e.idx DESC LIMIT $6`),
		after: db.Stmt(`SELECT ` + eventColumns + from + `WHERE e.room_nid = $1 AND e.sent >= $2 AND (e.sent, e.nid) > ($2, $3) AND e.seg IS NOT NULL
			ORDER BY e.sent, e.nid LIMIT $4`),
		before: db.Stmt(`SELECT ` + eventColumns + from + `WHERE e.room_nid = $1 AND e.sent <= $2 AND (e.sent, e.nid) < ($2, $3) AND e.seg IS NOT NULL
			ORDER BY e.sent DESC, e.nid DESC LIMIT $4`),
		pend:    db.Insert("roomserver_pending_redactions", []string{"target", "redaction", "room_nid"}, "ON CONFLICT (target, redaction) DO NOTHING"),
		pending: db.Stmt(`SELECT target, redaction FROM roomserver_pending_redactions WHERE target = ANY($1) AND room_nid = $2`),
		unpend:  db.Stmt(`DELETE FROM roomserver_pending_redactions WHERE target = ANY($1) AND room_nid = $2`),
	}
}

// NewEventNIDs takes n consecutive numbers for events.
func (s *Storage) NewEventNIDs(ctx context.Context, n int) (stateres.EventNID, error) {
	first, err := s.eventIDs.Next(ctx, int64(n))
	return stateres.EventNID(first), err
}

// Log is the events table as the rows of the room topic.
func (s *Storage) Log() eventlog.Store { return roomLog{s} }

type roomLog struct{ s *Storage }

func (l roomLog) Insert(ctx context.Context, tx *sqlutil.Tx, records []eventlog.Appended) error {
	var rows, deltas, relations [][]any
	for i := range records {
		r := &records[i]
		e, is := r.Value.(*NewEvent)
		if !is {
			return fmt.Errorf("a %T is no event", r.Value)
		}
		o := e.Output
		flags := int64(0)
		if o.Backfilled {
			flags |= flagBackfilled
		}
		if o.Redacts != "" {
			flags |= flagRedacts
		}
		rows = append(rows, e.row(&r.Partition, &r.Seq, flags, o.Joined, o.Invited, r.Time, r.Trace))
		if relation := e.relation(); relation != nil {
			relations = append(relations, relation)
		}
		if o.RootBefore != o.RootAfter || o.StateRoot != o.RootBefore {
			changes, err := json.Marshal(o.Changes)
			if err != nil {
				return err
			}
			deltas = append(deltas, []any{e.NID, rootBytes(o.RootBefore), rootBytes(o.RootAfter), string(changes)})
		}
	}
	if _, err := l.s.events.insert.Exec(ctx, tx, rows); err != nil {
		return err
	}
	if len(relations) > 0 {
		if _, err := l.s.relations.insert.Exec(ctx, tx, relations); err != nil {
			return err
		}
	}
	if len(deltas) == 0 {
		return nil
	}
	_, err := l.s.insertDelta.Exec(ctx, tx, deltas)
	return err
}

func (e *NewEvent) row(part *int32, seq *int64, flags, joined, invited, logged int64, trace string) []any {
	var seg, idx, p, q any
	if e.InTimeline {
		seg, idx = e.Order.Segment, e.Order.Index
	}
	if part != nil {
		p, q = *part, *seq
	}
	var requestKey any
	if len(e.RequestKey) > 0 {
		requestKey = e.RequestKey
	}
	return []any{e.NID, e.RoomNID, e.PDU.ID(), p, q, seg, idx, e.Outcome, flags, rootBytes(e.Root), e.Visibility, joined, invited,
		packNIDs(e.Auth), e.RedactedBy, requestKey, e.DeviceID, e.TransactionID, logged, trace, e.PDU.OriginServerTS(), compress(e.PDU.JSON(), e.PDU.RoomID())}
}

// InsertAside stores events that are not part of the log: rejected ones and outliers.
func (s *Storage) InsertAside(ctx context.Context, tx *sqlutil.Tx, all []*NewEvent) error {
	rows := make([][]any, len(all))
	for i, e := range all {
		rows[i] = e.row(nil, nil, 0, 0, 0, 0, "")
	}
	_, err := s.events.insert.Exec(ctx, tx, rows)
	return err
}

// DeleteAside removes events that are not part of the log, before they are stored anew with another outcome.
func (s *Storage) DeleteAside(ctx context.Context, tx *sqlutil.Tx, nids []stateres.EventNID) error {
	_, err := s.deleteAside.Exec(ctx, tx, sqlutil.Array(nids))
	return err
}

func (l roomLog) Read(ctx context.Context, tx *sqlutil.Tx, partition int32, from int64, limit int) ([]eventlog.Record, error) {
	rows, err := l.s.readLog.Query(ctx, tx, partition, from, limit)
	return sqlutil.Collect(rows, err, func(rows *sql.Rows) (eventlog.Record, error) {
		var flags int64
		var before, after, changes []byte
		o := new(api.OutputEvent)
		r := eventlog.Record{Topic: api.Topic, Partition: partition, Type: api.TypeEvent, Decoded: o}
		e, err := scanEvent(prefixed{rows, []any{&r.Seq, &r.Time, &r.Trace, &flags, &o.Joined, &o.Invited, &o.RoomID, &before, &after, &changes}})
		if err != nil {
			return r, err
		}
		r.Key = string(o.RoomID)
		o.RoomVersion, o.Event, o.Order, o.StateRoot = e.PDU.Version(), e.PDU, e.Order, e.Root
		o.RootBefore, o.RootAfter = e.Root, e.Root
		o.SoftFailed, o.Backfilled = e.Outcome == SoftFailed, flags&flagBackfilled != 0
		o.Visibility, o.DeviceID, o.TransactionID = e.Visibility.String(), e.DeviceID, e.TransactionID
		if flags&flagRedacts != 0 {
			o.Redacts = e.PDU.Redacts()
		}
		if changes == nil {
			return r, nil
		}
		if o.RootBefore, err = rootOf(before); err == nil {
			if o.RootAfter, err = rootOf(after); err == nil {
				err = json.Unmarshal(changes, &o.Changes)
			}
		}
		return r, err
	})
}

// prefixed is a row that begins with more columns than those of an event.
type prefixed struct {
	row  scanner
	into []any
}

func (p prefixed) Scan(into ...any) error { return p.row.Scan(append(p.into, into...)...) }

func scanEvent(row scanner) (*Event, error) {
	e := new(Event)
	var eventID id.EventID
	var version id.RoomVersion
	var room id.RoomID
	var seg, idx sql.NullInt64
	var root, auth, raw []byte
	err := row.Scan(&e.NID, &e.RoomNID, &eventID, &seg, &idx, &e.Outcome, &root, &e.Visibility, &auth, &e.RedactedBy, &e.DeviceID, &e.TransactionID, &version, &room, &raw)
	if err != nil {
		return nil, err
	}
	e.InTimeline, e.Order = seg.Valid, api.OrderKey{Segment: seg.Int64, Index: idx.Int64}
	if e.Root, err = rootOf(root); err == nil {
		if e.Auth, err = unpackNIDs(auth); err == nil {
			if raw, err = decompress(raw, room); err == nil {
				e.PDU, err = pdu.ParseTrusted(version, eventID, raw)
			}
		}
	}
	if err != nil {
		return nil, fmt.Errorf("event %s: %w", eventID, err)
	}
	return e, nil
}

func collectEvents(rows *sql.Rows, err error) ([]*Event, error) {
	return sqlutil.Collect(rows, err, func(rows *sql.Rows) (*Event, error) { return scanEvent(rows) })
}

// EventsByID reads those of the events that exist, in any order.
func (s *Storage) EventsByID(ctx context.Context, ids []id.EventID) (all []*Event, err error) {
	if len(ids) == 0 {
		return nil, nil
	}
	err = s.DB.ReadOne(ctx, "events by id", func(ctx context.Context, tx *sqlutil.Tx) error {
		all, err = collectEvents(s.byIDs.Query(ctx, tx, sqlutil.Array(ids)))
		return err
	})
	return all, err
}

// EventsByNID reads events, in any order. A missing one is an error: nothing refers to what was never stored.
func (s *Storage) EventsByNID(ctx context.Context, nids []stateres.EventNID) (all []*Event, err error) {
	if len(nids) == 0 {
		return nil, nil
	}
	err = s.DB.ReadOne(ctx, "events by nid", func(ctx context.Context, tx *sqlutil.Tx) error {
		all, err = collectEvents(s.byNIDs.Query(ctx, tx, sqlutil.Array(nids)))
		return err
	})
	if err == nil && len(all) != len(nids) {
		err = fmt.Errorf("of %d events %d are stored", len(nids), len(all))
	}
	return all, err
}

// Known is what is known of an event without reading it.
type Known struct {
	NID     stateres.EventNID
	RoomNID int64
	Outcome Outcome
}

// KnownEvents tells which of the events exist.
func (s *Storage) KnownEvents(ctx context.Context, ids []id.EventID) (map[id.EventID]Known, error) {
	found := make(map[id.EventID]Known, len(ids))
	if len(ids) == 0 {
		return found, nil
	}
	err := s.DB.ReadOne(ctx, "known events", func(ctx context.Context, tx *sqlutil.Tx) error {
		rows, err := s.nids.Query(ctx, tx, sqlutil.Array(ids))
		_, err = sqlutil.Collect(rows, err, func(rows *sql.Rows) (none struct{}, err error) {
			var eventID id.EventID
			var k Known
			err = rows.Scan(&eventID, &k.NID, &k.RoomNID, &k.Outcome)
			found[eventID] = k
			return none, err
		})
		return err
	})
	return found, err
}

// EventOfRequest is the event that an earlier call with this request key made; empty if there was none.
func (s *Storage) EventOfRequest(ctx context.Context, key []byte) (eventID id.EventID, err error) {
	err = s.DB.ReadOne(ctx, "event of request", func(ctx context.Context, tx *sqlutil.Tx) error {
		return s.byRequest.QueryRow(ctx, tx, key).Scan(&eventID)
	})
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	return eventID, err
}

// Redact replaces an event by its redacted form, which relates to nothing; related says that the event did.
func (s *Storage) Redact(ctx context.Context, tx *sqlutil.Tx, nid stateres.EventNID, redaction id.EventID, redacted *pdu.Event, related bool) error {
	if _, err := s.events.redact.Exec(ctx, tx, nid, redaction, compress(redacted.JSON(), redacted.RoomID())); err != nil || !related {
		return err
	}
	_, err := s.relations.unrelate.Exec(ctx, tx, nid)
	return err
}

// Placed is an event in a timeline.
type Placed struct {
	NID        stateres.EventNID
	RedactedBy id.EventID
}

// Timeline lists a page of a room's timeline: backward from and including the event at from, forward after it; never beyond to.
func (s *Storage) Timeline(ctx context.Context, roomNID int64, from, to api.OrderKey, backward bool, limit int) (all []Placed, err error) {
	stmt := s.events.forward
	if backward {
		stmt = s.events.backward
	}
	err = s.DB.ReadOne(ctx, "timeline", func(ctx context.Context, tx *sqlutil.Tx) error {
		rows, err := stmt.Query(ctx, tx, roomNID, from.Segment, from.Index, to.Segment, to.Index, limit)
		all, err = sqlutil.Collect(rows, err, func(rows *sql.Rows) (p Placed, err error) { return p, rows.Scan(&p.NID, &p.RedactedBy) })
		return err
	})
	return all, err
}

// SentAround reads a page of a room's timeline by the time at which events were sent (origin_server_ts): those before or after the
// time, and of those at the time itself the ones whose number is smaller or greater.
func (s *Storage) SentAround(ctx context.Context, roomNID, time int64, nid stateres.EventNID, backward bool, limit int) (all []*Event, err error) {
	stmt := s.events.after
	if backward {
		stmt = s.events.before
	}
	err = s.DB.ReadOne(ctx, "events by time", func(ctx context.Context, tx *sqlutil.Tx) error {
		all, err = collectEvents(stmt.Query(ctx, tx, roomNID, time, nid, limit))
		return err
	})
	return all, err
}

// PendingRedaction is a redaction whose target has not come.
type PendingRedaction struct{ Target, Redaction id.EventID }

// AddPendingRedactions remembers redactions.
func (s *Storage) AddPendingRedactions(ctx context.Context, tx *sqlutil.Tx, roomNID int64, all []PendingRedaction) error {
	rows := make([][]any, len(all))
	for i, p := range all {
		rows[i] = []any{p.Target, p.Redaction, roomNID}
	}
	_, err := s.pend.Exec(ctx, tx, rows)
	return err
}

// RemovePendingRedactions forgets those of targets that have come.
func (s *Storage) RemovePendingRedactions(ctx context.Context, tx *sqlutil.Tx, roomNID int64, targets []id.EventID) error {
	_, err := s.unpend.Exec(ctx, tx, sqlutil.Array(targets), roomNID)
	return err
}

// PendingRedactions finds redactions that wait for these events.
func (s *Storage) PendingRedactions(ctx context.Context, roomNID int64, targets []id.EventID) (map[id.EventID][]id.EventID, error) {
	found := make(map[id.EventID][]id.EventID)
	err := s.DB.ReadOne(ctx, "pending redactions", func(ctx context.Context, tx *sqlutil.Tx) error {
		rows, err := s.events.pending.Query(ctx, tx, sqlutil.Array(targets), roomNID)
		_, err = sqlutil.Collect(rows, err, func(rows *sql.Rows) (none struct{}, err error) {
			var target, redaction id.EventID
			err = rows.Scan(&target, &redaction)
			found[target] = append(found[target], redaction)
			return none, err
		})
		return err
	})
	return found, err
}

func packNIDs(nids []stateres.EventNID) []byte {
	packed := make([]byte, 0, 4*len(nids))
	for _, nid := range nids {
		packed = binary.AppendUvarint(packed, uint64(nid))
	}
	return packed
}

func unpackNIDs(packed []byte) ([]stateres.EventNID, error) {
	var nids []stateres.EventNID
	for len(packed) > 0 {
		nid, n := binary.Uvarint(packed)
		if n <= 0 {
			return nil, errors.New("the list of its auth events is damaged")
		}
		nids = append(nids, stateres.EventNID(nid))
		packed = packed[n:]
	}
	return nids, nil
}
