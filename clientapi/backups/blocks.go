package backups

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"

	"github.com/matrix-org/dendrite/clientapi/storage"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// Sizes of blocks, in bytes of session data. A block with as much as openBlock gets no sessions of later requests;
// those of one request fill it up to fullBlock. So little is written again to add a session, and a room has few blocks,
// in whatever way its sessions came.
const (
	openBlock = 16 << 10
	fullBlock = 48 << 10 // with the session that goes beyond
)

// change is what a write has made of a backup's keys.
type change struct {
	changed  bool
	sessions int64 // how many keys there are more
	bytes    int64 // by how many the session data grew
}

// edit is a block that a write may change.
type edit struct {
	storage.BackupBlock
	ranks []rank
	bytes int64 // of session data
	isNew bool
	// better are keys that take the place of those in the block, more are added to it.
	better, more []*Session
}

func newEdit(b storage.BackupBlock) (*edit, error) {
	e := &edit{BackupBlock: b}
	return e, readRanks(b.Ranks, func(r *rank) {
		e.ranks = append(e.ranks, *r)
		e.bytes += r.size
	})
}

func (e *edit) isChanged() bool { return len(e.better)+len(e.more) > 0 }

// offer is a key that a backup may take.
type offer struct {
	*Session
	rank  rank
	isOld bool // the backup has a key for the session
}

// plan finds out which keys a backup takes that has these blocks in the rooms of the keys, in the order of their
// numbers. Keys are in the order of rooms, no two of one session. It returns the blocks that change.
func plan(keys []Session, blocks []storage.BackupBlock) (edits []*edit, c change, err error) {
	of := make(map[id.RoomID][]storage.BackupBlock)
	for _, b := range blocks {
		of[b.RoomID] = append(of[b.RoomID], b)
	}
	for len(keys) > 0 {
		room := keys[0].RoomID
		n := slices.IndexFunc(keys, func(k Session) bool { return k.RoomID != room })
		if n < 0 {
			n = len(keys)
		}
		changed, err := c.planRoom(keys[:n], of[room])
		if err != nil {
			return nil, c, err
		}
		edits, keys = append(edits, changed...), keys[n:]
	}
	return edits, c, nil
}

func (c *change) planRoom(keys []Session, blocks []storage.BackupBlock) (edits []*edit, err error) {
	offers := make([]offer, len(keys))
	at := make(map[name]*offer, len(keys))
	for i := range keys {
		offers[i] = offer{Session: &keys[i], rank: keys[i].rank()}
		at[offers[i].rank.name] = &offers[i]
	}
	last := &edit{bytes: openBlock}
	for i, b := range blocks {
		changes := false
		err := readRanks(b.Ranks, func(r *rank) {
			if o := at[r.name]; o != nil {
				o.isOld = true
				changes = changes || o.rank.isBetter(r)
			}
		})
		if err == nil && (changes || i == len(blocks)-1) {
			last, err = newEdit(b)
		}
		if err != nil {
			return nil, err
		}
		if changes {
			c.improve(last, at)
			edits = append(edits, last)
		}
	}
	full := int64(openBlock)
	for i := range offers {
		o := &offers[i]
		if o.isOld {
			continue
		}
		if last.bytes >= full {
			last = &edit{BackupBlock: storage.BackupBlock{RoomID: o.RoomID, Number: last.Number + 1}, isNew: true}
		}
		full = fullBlock
		if !last.isChanged() {
			edits = append(edits, last)
		}
		last.ranks, last.more = append(last.ranks, o.rank), append(last.more, o.Session)
		last.bytes += o.rank.size
		c.add(1, o.rank.size)
	}
	return edits, nil
}

// improve takes the offers that are better than what a block has.
func (c *change) improve(e *edit, at map[name]*offer) {
	for i := range e.ranks {
		r := &e.ranks[i]
		if o := at[r.name]; o != nil && o.rank.isBetter(r) {
			c.add(0, o.rank.size-r.size)
			e.bytes += o.rank.size - r.size
			*r = o.rank
			e.better = append(e.better, o.Session)
		}
	}
}

func (c *change) add(sessions, bytes int64) {
	c.changed = true
	c.sessions += sessions
	c.bytes += bytes
}

// writeBlocks applies edits. It is false where another has made a block meanwhile.
func (s *Service) writeBlocks(ctx context.Context, tx *sqlutil.Tx, nid int64, edits []*edit) (bool, error) {
	var made []storage.BackupBlock
	for _, e := range edits {
		e.Ranks = nil
		for i := range e.ranks {
			e.Ranks = e.ranks[i].append(e.Ranks)
		}
		more := texts(e.more)
		switch {
		case e.isNew:
			e.Sessions = more
			made = append(made, e.BackupBlock)
		case len(e.better) == 0:
			if err := s.store.AppendToBlock(ctx, tx, nid, &e.BackupBlock, append([]byte{','}, more...)); err != nil {
				return false, err
			}
		default:
			if err := s.rewrite(ctx, tx, nid, e, more); err != nil {
				return false, err
			}
		}
	}
	if len(made) == 0 {
		return true, nil
	}
	return s.store.PutBackupBlocks(ctx, tx, nid, made)
}

func texts(keys []*Session) []byte {
	size := 0
	for _, k := range keys {
		size += len(k.SessionData) + 2*len(k.SessionID) + 128
	}
	text := make([]byte, 0, size)
	for i, k := range keys {
		if i > 0 {
			text = append(text, ',')
		}
		text = k.appendMember(text)
	}
	return text
}

// rewrite replaces keys of a block, and adds more.
func (s *Service) rewrite(ctx context.Context, tx *sqlutil.Tx, nid int64, e *edit, more []byte) error {
	old, err := s.store.BackupSessions(ctx, tx, nid, &e.BackupBlock)
	if err != nil {
		return err
	}
	better := make(map[string]*Session, len(e.better))
	for _, k := range e.better {
		better[k.SessionID] = k
	}
	text := make([]byte, 0, len(old)+len(more))
	err = members(old, func(session string, key json.RawMessage) {
		if len(text) > 0 {
			text = append(text, ',')
		}
		if k := better[session]; k != nil {
			text = k.appendMember(text)
		} else {
			text = append(append(pdu.AppendString(text, session), ':'), key...)
		}
	})
	if len(more) > 0 {
		text = append(append(text, ','), more...)
	}
	e.Sessions = text
	if err != nil {
		return err
	}
	return s.store.ReplaceBlock(ctx, tx, nid, &e.BackupBlock)
}

// find returns that of blocks which has a session, and the session's place in it; nil if none has.
func find(blocks []storage.BackupBlock, session string) (e *edit, at int, err error) {
	wanted := nameOf(session)
	for _, b := range blocks {
		has := false
		if err := readRanks(b.Ranks, func(r *rank) { has = has || r.name == wanted }); err != nil {
			return nil, 0, err
		}
		if has {
			e, err := newEdit(b)
			return e, slices.IndexFunc(e.ranks, func(r rank) bool { return r.name == wanted }), err
		}
	}
	return nil, 0, nil
}

// drop removes a session from its block.
func (s *Service) drop(ctx context.Context, tx *sqlutil.Tx, nid int64, e *edit, at int,
	session string) (change, error) {
	c := change{true, -1, -e.ranks[at].size}
	if len(e.ranks) == 1 {
		return c, s.store.DropBlock(ctx, tx, nid, &e.BackupBlock)
	}
	old, err := s.store.BackupSessions(ctx, tx, nid, &e.BackupBlock)
	if err != nil {
		return c, err
	}
	e.Sessions, e.Ranks = make([]byte, 0, len(old)), nil
	err = members(old, func(one string, key json.RawMessage) {
		if one == session {
			return
		}
		if len(e.Sessions) > 0 {
			e.Sessions = append(e.Sessions, ',')
		}
		e.Sessions = append(append(pdu.AppendString(e.Sessions, one), ':'), key...)
	})
	for i := range e.ranks {
		if i != at {
			e.Ranks = e.ranks[i].append(e.Ranks)
		}
	}
	if err != nil {
		return c, err
	}
	return c, s.store.ReplaceBlock(ctx, tx, nid, &e.BackupBlock)
}

// dropRoom removes the first blocks of a room, at most so many, and tells how many there were.
func (s *Service) dropRoom(ctx context.Context, tx *sqlutil.Tx, nid int64, room id.RoomID, most int) (c change, n int,
	err error) {
	blocks, err := s.store.RoomRanks(ctx, tx, nid, room, most)
	if err != nil || len(blocks) == 0 {
		return c, 0, err
	}
	for _, b := range blocks {
		err := readRanks(b.Ranks, func(r *rank) {
			c.sessions--
			c.bytes -= r.size
		})
		if err != nil {
			return c, 0, err
		}
	}
	c.changed = true
	return c, len(blocks), s.store.DropBlocks(ctx, tx, nid, &blocks[len(blocks)-1])
}

// rooms are those of keys in their order.
func rooms(keys []Session) (all []id.RoomID) {
	for i := range keys {
		if i == 0 || keys[i].RoomID != keys[i-1].RoomID {
			all = append(all, keys[i].RoomID)
		}
	}
	return all
}

func sortKeys(keys []Session) {
	slices.SortFunc(keys, func(a, b Session) int {
		return cmp.Or(cmp.Compare(a.RoomID, b.RoomID), cmp.Compare(a.SessionID, b.SessionID))
	})
}
