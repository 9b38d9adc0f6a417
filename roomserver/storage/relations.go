package storage

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"strings"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/roomserver/stateres"
)

type relations struct {
	insert    *sqlutil.Insert
	unrelate  *sqlutil.Stmt
	count     *sqlutil.Stmt
	oldest    *sqlutil.Stmt
	newest    *sqlutil.Stmt
	ids       *sqlutil.Stmt
	threads   *sqlutil.Stmt
	annotated *sqlutil.Stmt
}

func newRelations(db *sqlutil.DB) relations {
	children := `SELECT ` + eventColumns + ` FROM roomserver_relations c JOIN roomserver_events e ON e.nid = c.nid JOIN roomserver_rooms r ON r.nid = c.room_nid
		WHERE c.parent = ANY($1) AND c.room_nid = $2 AND ($3::text = '' OR c.rel_type = $3) AND ($4::text = '' OR c.type = $4) AND ($5::text = '' OR c.sender = $5)
		AND NOT (c.sender = ANY($6)) `
	return relations{
		insert:   db.Insert("roomserver_relations", []string{"nid", "room_nid", "parent", "rel_type", "seg", "idx", "sender", "type", "annotation"}, ""),
		unrelate: db.Stmt(`DELETE FROM roomserver_relations WHERE nid = $1`),
		count: db.Stmt(`SELECT room_nid, parent, rel_type, COUNT(*), MAX(CASE WHEN sender = $2 THEN 1 ELSE 0 END) FROM roomserver_relations
			WHERE parent = ANY($1) AND rel_type IN ('m.replace', 'm.reference', 'm.thread') AND (seg, idx) <= ($3, $4) AND NOT (sender = ANY($5))
			GROUP BY room_nid, parent, rel_type`),
		oldest: db.Stmt(children + `AND (c.seg, c.idx) > ($7, $8) AND (c.seg, c.idx) <= ($9, $10) ORDER BY c.seg, c.idx LIMIT $11`),
		newest: db.Stmt(children + `AND (c.seg, c.idx) <= ($7, $8) AND (c.seg, c.idx) > ($9, $10) ORDER BY c.seg DESC, c.idx DESC LIMIT $11`),
		ids: db.Stmt(`SELECT e.event_id FROM roomserver_relations c JOIN roomserver_events e ON e.nid = c.nid
			WHERE c.parent = ANY($1) AND c.room_nid = $2 AND ($3::text = '' OR c.rel_type = $3) AND ($4::text = '' OR c.type = $4) ORDER BY c.seg, c.idx LIMIT $5`),
		threads: db.Stmt(`SELECT parent, seg, idx FROM roomserver_relations t WHERE room_nid = $1 AND rel_type = 'm.thread' AND (seg, idx) <= ($2, $3)
			AND NOT (sender = ANY($4)) AND NOT EXISTS (SELECT 1 FROM roomserver_relations later WHERE later.parent = t.parent AND later.rel_type = 'm.thread'
				AND (later.seg, later.idx) > (t.seg, t.idx) AND (later.seg, later.idx) <= ($5, $6) AND later.room_nid = t.room_nid
				AND NOT (later.sender = ANY($4)))
			ORDER BY seg DESC, idx DESC LIMIT $7`),
		annotated: db.Stmt(`SELECT nid FROM roomserver_relations
			WHERE parent = $1 AND rel_type = 'm.annotation' AND room_nid = $2 AND sender = $3 AND type = $4 AND annotation = $5 LIMIT 1`),
	}
}

// relation is the row of what an event relates to; nil if it has none. Clients do not see soft-failed events, so these do not count.
func (e *NewEvent) relation() []any {
	r := e.PDU.Relation()
	if r.Type == "" || e.Outcome != Accepted || !e.InTimeline || strings.ContainsRune(e.PDU.Type(), 0) {
		return nil
	}
	return []any{e.NID, e.RoomNID, r.Parent, r.Type, e.Order.Segment, e.Order.Index, e.PDU.Sender(), e.PDU.Type(), annotation(r)}
}

// annotation is the key of an annotation in a form that has one length.
func annotation(r pdu.Relation) []byte {
	if r.Type != pdu.RelAnnotation {
		return []byte{}
	}
	sum := sha256.Sum256([]byte(r.Key))
	return sum[:16]
}

// RelationCount is how many events of one room relate to an event in one way.
type RelationCount struct {
	RoomNID int64
	Parent  id.EventID
	Type    string
	Count   int64
	Own     bool // whether the user has sent one of them
}

// CountRelations counts those events that relate to parents in a way that is aggregated (Client-Server API, § Aggregations of child
// events), up to a place in their room, without those of ignored senders.
func (s *Storage) CountRelations(ctx context.Context, parents []id.EventID, user id.UserID, ignored []id.UserID, until api.OrderKey) (all []RelationCount, err error) {
	err = s.DB.ReadOne(ctx, "count relations", func(ctx context.Context, tx *sqlutil.Tx) error {
		rows, err := s.relations.count.Query(ctx, tx, sqlutil.Array(parents), user, until.Segment, until.Index, sqlutil.Array(ignored))
		all, err = sqlutil.Collect(rows, err, func(rows *sql.Rows) (c RelationCount, err error) {
			return c, rows.Scan(&c.RoomNID, &c.Parent, &c.Type, &c.Count, &c.Own)
		})
		return err
	})
	return all, err
}

// Children selects events of a room that relate to one of Parents. What is empty selects all.
type Children struct {
	RoomNID   int64
	Parents   []id.EventID
	RelType   string
	EventType string
	Sender    id.UserID
	Ignored   []id.UserID
}

// Children reads a page of events that relate to others, like Timeline.
func (s *Storage) Children(ctx context.Context, c Children, from, to api.OrderKey, backward bool, limit int) (all []*Event, err error) {
	stmt := s.relations.oldest
	if backward {
		stmt = s.relations.newest
	}
	err = s.DB.ReadOne(ctx, "children", func(ctx context.Context, tx *sqlutil.Tx) error {
		all, err = collectEvents(stmt.Query(ctx, tx, sqlutil.Array(c.Parents), c.RoomNID, c.RelType, c.EventType, c.Sender, sqlutil.Array(c.Ignored),
			from.Segment, from.Index, to.Segment, to.Index, limit))
		return err
	})
	return all, err
}

// ChildIDs lists events that relate to others, oldest first.
func (s *Storage) ChildIDs(ctx context.Context, c Children, limit int) (all []id.EventID, err error) {
	err = s.DB.ReadOne(ctx, "children", func(ctx context.Context, tx *sqlutil.Tx) error {
		rows, err := s.relations.ids.Query(ctx, tx, sqlutil.Array(c.Parents), c.RoomNID, c.RelType, c.EventType, limit)
		all, err = sqlutil.Collect(rows, err, func(rows *sql.Rows) (child id.EventID, err error) { return child, rows.Scan(&child) })
		return err
	})
	return all, err
}

// Thread is a thread by its root, with the place of its newest event.
type Thread struct {
	Root   id.EventID
	Newest api.OrderKey
}

// Threads lists threads of a room, that with the newest event first, from and including the place from. Events of ignored senders, and
// those that come after until, do not count.
func (s *Storage) Threads(ctx context.Context, roomNID int64, ignored []id.UserID, from, until api.OrderKey, limit int) (all []Thread, err error) {
	err = s.DB.ReadOne(ctx, "threads", func(ctx context.Context, tx *sqlutil.Tx) error {
		rows, err := s.relations.threads.Query(ctx, tx, roomNID, from.Segment, from.Index, sqlutil.Array(ignored), until.Segment, until.Index, limit)
		all, err = sqlutil.Collect(rows, err, func(rows *sql.Rows) (t Thread, err error) {
			return t, rows.Scan(&t.Root, &t.Newest.Segment, &t.Newest.Index)
		})
		return err
	})
	return all, err
}

// Annotated tells whether a user has an annotation of the same type and key on the same event.
func (s *Storage) Annotated(ctx context.Context, roomNID int64, r pdu.Relation, sender id.UserID, eventType string) (bool, error) {
	var nid stateres.EventNID
	err := s.DB.ReadOne(ctx, "annotated", func(ctx context.Context, tx *sqlutil.Tx) error {
		return s.annotated.QueryRow(ctx, tx, r.Parent, roomNID, sender, eventType, annotation(r)).Scan(&nid)
	})
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}
