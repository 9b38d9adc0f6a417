package backups

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/matrix-org/dendrite/clientapi/storage"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// Limits of keys. A session that was forwarded now and then has less than 2 KiB of data, and clients send 100 to 200
// at once.
const (
	MaxSessionID   = 255      // bytes
	MaxSessionData = 16 << 10 // bytes of JSON
	MaxAtOnce      = 2000     // sessions in a request
	// MaxSessions and MaxBytes are for all backups of a user together.
	MaxSessions = 1_000_000
	MaxBytes    = 1 << 30 // of session data
)

// State is what clients hear of a backup whose keys they change.
type State struct {
	ETag     string
	Sessions int64
}

func stateOf(b *storage.Backup) State { return State{ETag(b), b.Sessions} }

// ETag differs whenever other keys are in a backup.
func ETag(b *storage.Backup) string { return VersionText(b.ETag) }

// Put adds keys to the user's newest backup; of two keys for a session the better one stays. M_WRONG_ROOM_KEYS_VERSION
// if another version is the newest, M_NOT_FOUND if there is none, M_TOO_LARGE beyond the limits: then nothing is added.
func (s *Service) Put(ctx context.Context, user id.UserID, version string, keys []Session) (State, error) {
	if err := checkKeys(keys); err != nil {
		return State{}, err
	}
	sortKeys(keys)
	var b *storage.Backup
	err := s.write(ctx, "back up keys", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
		b = nil
		for b == nil {
			if b, err = s.store.LockLatest(ctx, tx, user, parseVersion(version)); err != nil {
				return err
			}
			if b == nil {
				err = s.wrongVersion(ctx, tx, user, version)
			}
			if err != nil {
				return err
			}
		}
		change, err := s.improve(ctx, tx, b, keys)
		if err != nil {
			return fmt.Errorf("add the keys: %w", err)
		}
		sessions, bytes := b.OtherSessions+b.Sessions+change.sessions, b.OtherBytes+b.Bytes+change.bytes
		if (change.sessions > 0 || change.bytes > 0) && (sessions > MaxSessions || bytes > MaxBytes) {
			return mxerr.TooLarge("you may back up %d sessions of %d bytes together: delete older versions of the backup",
				MaxSessions, MaxBytes)
		}
		return s.move(ctx, tx, user, b, change)
	})
	if err != nil {
		return State{}, fmt.Errorf("back up keys of %s: %w", user, err)
	}
	return stateOf(b), nil
}

func (s *Service) improve(ctx context.Context, tx *sqlutil.Tx, b *storage.Backup,
	keys []Session) (c change, err error) {
	if len(keys) == 0 {
		return c, nil
	}
	blocks, err := s.store.BackupRanks(ctx, tx, b.NID, rooms(keys))
	if err != nil {
		return c, err
	}
	edits, c, err := plan(keys, blocks)
	if err != nil {
		return c, err
	}
	done, err := s.writeBlocks(ctx, tx, b.NID, edits)
	if err == nil && !done {
		err = errRaced
	}
	return c, err
}

// errRaced says that the keys of a backup have changed since it was read.
var errRaced = errors.New("the keys of the backup have changed meanwhile")

// attempts is how often a change of a backup's keys begins anew where another was faster.
const attempts = 10

// write runs a transaction that changes a backup's keys. It begins anew where another has changed them since it has
// read them: where databases lock the row of the backup, nobody does.
func (s *Service) write(ctx context.Context, what string, run func(context.Context, *sqlutil.Tx) error) error {
	for range attempts {
		if err := s.store.DB.Write(ctx, what, run); !errors.Is(err, errRaced) {
			return err
		}
	}
	return mxerr.Unavailable("the keys of this backup are changed by others: try again")
}

func checkKeys(keys []Session) error {
	if len(keys) > MaxAtOnce {
		return mxerr.TooLarge("%d sessions are too many at once: send %d at most", len(keys), MaxAtOnce)
	}
	for i := range keys {
		if err := checkSessionID(keys[i].SessionID); err != nil {
			return err
		}
		if n := len(keys[i].SessionData); n > MaxSessionData {
			return mxerr.TooLarge("the session_data of %s has %d bytes: it may have %d", keys[i].SessionID, n, MaxSessionData)
		}
	}
	return nil
}

func checkSessionID(session string) error {
	if session == "" || len(session) > MaxSessionID || strings.ContainsRune(session, 0) {
		return mxerr.InvalidParam("the id of a session has 1 to %d bytes and no NUL", MaxSessionID)
	}
	return nil
}

// move counts a change of a backup's keys, if it is one.
func (s *Service) move(ctx context.Context, tx *sqlutil.Tx, user id.UserID, b *storage.Backup, c change) error {
	if !c.changed {
		return nil
	}
	done, err := s.store.MoveBackup(ctx, tx, user, b, c.sessions, c.bytes)
	if err == nil && !done {
		err = errRaced
	}
	return err
}

// Key returns the key of a session, as JSON. M_NOT_FOUND if there is none, or no such backup.
func (s *Service) Key(ctx context.Context, user id.UserID, version string, room id.RoomID,
	session string) (key json.RawMessage, err error) {
	err = s.store.DB.Read(ctx, "key of a backup", func(ctx context.Context, tx *sqlutil.Tx) error {
		nid, blocks, err := s.store.RanksOf(ctx, tx, user, parseVersion(version), room)
		if err == nil && nid == 0 {
			err = unknownVersion()
		}
		if err != nil {
			return err
		}
		e, _, err := find(blocks, session)
		if err == nil && e == nil {
			err = mxerr.NotFound("Key not found.")
		}
		if err != nil {
			return err
		}
		if e.Sessions, err = s.store.BackupSessions(ctx, tx, nid, &e.BackupBlock); err != nil {
			return err
		}
		return members(e.Sessions, func(one string, text json.RawMessage) {
			if one == session {
				key = text
			}
		})
	})
	return key, err
}

// blocksAtOnce is how many blocks a page has: 4 MiB at most, and less than a quarter of that as clients send keys.
const blocksAtOnce = 4 << 20 / (fullBlock + MaxSessionData)

// Pages are the keys of a backup as one JSON object, in parts, however many they are.
type Pages struct {
	s       *Service
	user    id.UserID
	version int64
	nid     int64
	inRoom  bool
	at      place
}

// place is how far Pages have come.
type place struct {
	last  storage.BackupBlock // without its sessions
	begun bool
	over  bool
}

// Keys returns the keys of a backup (its rooms), or of one room of it (its sessions). M_NOT_FOUND if there is no such
// backup.
func (s *Service) Keys(ctx context.Context, user id.UserID, version string, room id.RoomID) (*Pages, error) {
	b, err := s.Backup(ctx, user, version)
	if err != nil {
		return nil, err
	}
	return &Pages{s: s, user: user, version: b.Version, nid: b.NID, inRoom: room != "",
		at: place{last: storage.BackupBlock{RoomID: room}}}, nil
}

// Next appends the next part to text; it adds nothing after the last. It fails where the backup was deleted meanwhile.
func (p *Pages) Next(ctx context.Context, text []byte) ([]byte, error) {
	if p.at.over {
		return text, nil
	}
	store, before := p.s.store, len(text)
	var at place
	err := store.DB.Read(ctx, "keys of a backup", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
		at, text = p.at, text[:before]
		n, err := store.BackupBlocks(ctx, tx, p.nid, at.last, p.inRoom, blocksAtOnce, func(b storage.BackupBlock) {
			text = at.add(text, &b, p.inRoom)
		})
		if err != nil {
			return err
		}
		if at.over = n < blocksAtOnce; at.over {
			text = at.end(text, p.inRoom)
		}
		b, err := store.Backup(ctx, tx, p.user, p.version)
		if err == nil && (b == nil || b.NID != p.nid) {
			err = unknownVersion()
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("keys of a backup of %s: %w", p.user, err)
	}
	p.at = at
	return text, nil
}

// add writes the sessions of the next block.
func (p *place) add(to []byte, b *storage.BackupBlock, inRoom bool) []byte {
	switch {
	case p.begun && b.RoomID == p.last.RoomID:
		to = append(to, ',')
	case inRoom:
		to = append(to, `{"sessions":{`...)
	default:
		if p.begun {
			to = append(to, "}},"...)
		} else {
			to = append(to, `{"rooms":{`...)
		}
		to = append(pdu.AppendString(to, b.RoomID), `:{"sessions":{`...)
	}
	p.begun, p.last = true, storage.BackupBlock{RoomID: b.RoomID, Number: b.Number}
	return append(to, b.Sessions...)
}

// end writes what comes after the last block.
func (p *place) end(to []byte, inRoom bool) []byte {
	switch {
	case inRoom && !p.begun:
		return append(to, `{"sessions":{}}`...)
	case inRoom:
		return append(to, "}}"...)
	case !p.begun:
		return append(to, `{"rooms":{}}`...)
	}
	return append(to, "}}}}"...)
}

// DeleteKey removes the key of a session from a backup, whether it is the newest or not. M_NOT_FOUND if there is no such
// backup.
func (s *Service) DeleteKey(ctx context.Context, user id.UserID, version string, room id.RoomID,
	session string) (State, error) {
	if err := checkSessionID(session); err != nil {
		return State{}, err
	}
	return s.remove(ctx, user, version, func(ctx context.Context, tx *sqlutil.Tx, b *storage.Backup) (bool, error) {
		blocks, err := s.store.BackupRanks(ctx, tx, b.NID, []id.RoomID{room})
		if err != nil {
			return false, err
		}
		e, at, err := find(blocks, session)
		if err != nil || e == nil {
			return false, err
		}
		change, err := s.drop(ctx, tx, b.NID, e, at, session)
		if err != nil {
			return false, err
		}
		return false, s.move(ctx, tx, user, b, change)
	})
}

// DeleteRoomKeys is DeleteKey for all sessions of a room.
func (s *Service) DeleteRoomKeys(ctx context.Context, user id.UserID, version string, room id.RoomID) (State, error) {
	return s.remove(ctx, user, version, func(ctx context.Context, tx *sqlutil.Tx, b *storage.Backup) (bool, error) {
		change, n, err := s.dropRoom(ctx, tx, b.NID, room, sweepAtOnce)
		if err != nil {
			return false, err
		}
		return n == sweepAtOnce, s.move(ctx, tx, user, b, change)
	})
}

// DeleteKeys is DeleteKey for all sessions of a backup.
func (s *Service) DeleteKeys(ctx context.Context, user id.UserID, version string) (State, error) {
	nid, err := s.nids.Next(ctx, 1)
	if err != nil {
		return State{}, fmt.Errorf("name a backup: %w", err)
	}
	return s.remove(ctx, user, version, func(ctx context.Context, tx *sqlutil.Tx, b *storage.Backup) (bool, error) {
		return false, s.empty(ctx, tx, user, b, nid)
	})
}

// remove runs what removes keys of a backup, in a transaction, and again while there are more.
func (s *Service) remove(ctx context.Context, user id.UserID, version string,
	run func(context.Context, *sqlutil.Tx, *storage.Backup) (more bool, err error)) (State, error) {
	for {
		var b *storage.Backup
		more := false
		err := s.write(ctx, "delete keys of a backup", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
			if b, err = s.store.LockBackup(ctx, tx, user, parseVersion(version)); err != nil {
				return err
			}
			if b == nil {
				return unknownVersion()
			}
			more, err = run(ctx, tx, b)
			return err
		})
		if err != nil {
			return State{}, fmt.Errorf("delete keys of a backup of %s: %w", user, err)
		}
		if !more {
			return stateOf(b), nil
		}
	}
}

// empty removes all keys of a backup, which then has another nid.
func (s *Service) empty(ctx context.Context, tx *sqlutil.Tx, user id.UserID, b *storage.Backup, nid int64) error {
	if b.Sessions == 0 {
		return nil
	}
	done, err := s.store.EmptyBackup(ctx, tx, user, b, nid)
	if err == nil && !done {
		err = unknownVersion()
	}
	return err
}
