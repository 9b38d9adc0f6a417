package backups

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/matrix-org/dendrite/clientapi/storage"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
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
func (s *Service) Put(ctx context.Context, user id.UserID, version string, keys []storage.BackupKey) (State, error) {
	if err := checkKeys(keys); err != nil {
		return State{}, err
	}
	slices.SortFunc(keys, func(a, b storage.BackupKey) int { // as the table is
		return cmp.Or(cmp.Compare(a.RoomID, b.RoomID), cmp.Compare(a.SessionID, b.SessionID))
	})
	var b *storage.Backup
	err := s.store.DB.Write(ctx, "back up keys", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
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
		change, err := s.store.PutBackupKeys(ctx, tx, b.NID, keys)
		if err != nil {
			return fmt.Errorf("add the keys: %w", err)
		}
		if err := s.move(ctx, tx, user, b, change); err != nil || change.Sessions <= 0 && change.Bytes <= 0 {
			return err
		}
		sessions, bytes, err := s.store.TotalBackups(ctx, tx, user)
		if err == nil && (sessions > MaxSessions || bytes > MaxBytes) {
			err = mxerr.TooLarge("you may back up %d sessions of %d bytes together: delete older versions of the backup",
				MaxSessions, MaxBytes)
		}
		return err
	})
	if err != nil {
		return State{}, fmt.Errorf("back up keys of %s: %w", user, err)
	}
	return stateOf(b), nil
}

func checkKeys(keys []storage.BackupKey) error {
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
func (s *Service) move(ctx context.Context, tx *sqlutil.Tx, user id.UserID, b *storage.Backup,
	c storage.BackupChange) error {
	if !c.Changed {
		return nil
	}
	done, err := s.store.MoveBackup(ctx, tx, user, b, c.Sessions, c.Bytes)
	if err == nil && !done {
		err = unknownVersion()
	}
	return err
}

// Key returns the key of a session. M_NOT_FOUND if there is none, or no such backup.
func (s *Service) Key(ctx context.Context, user id.UserID, version string, room id.RoomID,
	session string) (k *storage.BackupKey, err error) {
	err = s.store.DB.Read(ctx, "key of a backup", func(ctx context.Context, tx *sqlutil.Tx) error {
		b, err := s.store.Backup(ctx, tx, user, parseVersion(version))
		if err == nil && b == nil {
			err = unknownVersion()
		}
		if err == nil {
			k, err = s.store.BackupKey(ctx, tx, b.NID, room, session)
		}
		if err == nil && k == nil {
			err = mxerr.NotFound("Key not found.")
		}
		return err
	})
	return k, err
}

// keysAtOnce is how many keys a page has: 4 MiB at most.
const keysAtOnce = 4 << 20 / MaxSessionData

// Pages are the keys of a backup, in the order of rooms and sessions, however many they are.
type Pages struct {
	s       *Service
	user    id.UserID
	version int64
	nid     int64
	room    id.RoomID // empty: all rooms
	last    storage.BackupKey
	over    bool
}

// Keys returns the keys of a backup, or of one room of it. M_NOT_FOUND if there is no such backup.
func (s *Service) Keys(ctx context.Context, user id.UserID, version string, room id.RoomID) (*Pages, error) {
	b, err := s.Backup(ctx, user, version)
	if err != nil {
		return nil, err
	}
	return &Pages{s: s, user: user, version: b.Version, nid: b.NID, room: room}, nil
}

// Next returns the next page; an empty one is the last. It fails where the backup was deleted meanwhile.
func (p *Pages) Next(ctx context.Context) (keys []storage.BackupKey, err error) {
	if p.over {
		return nil, nil
	}
	store := p.s.store
	err = store.DB.Read(ctx, "keys of a backup", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
		if p.room == "" {
			keys, err = store.BackupKeys(ctx, tx, p.nid, p.last.RoomID, p.last.SessionID, keysAtOnce)
		} else {
			keys, err = store.RoomBackupKeys(ctx, tx, p.nid, p.room, p.last.SessionID, keysAtOnce)
		}
		if err != nil {
			return err
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
	if p.over = len(keys) < keysAtOnce; len(keys) > 0 {
		p.last = storage.BackupKey{RoomID: keys[len(keys)-1].RoomID, SessionID: keys[len(keys)-1].SessionID}
	}
	return keys, nil
}

// DeleteKey removes the key of a session from a backup, whether it is the newest or not. M_NOT_FOUND if there is no such
// backup.
func (s *Service) DeleteKey(ctx context.Context, user id.UserID, version string, room id.RoomID,
	session string) (State, error) {
	if err := checkSessionID(session); err != nil {
		return State{}, err
	}
	return s.remove(ctx, user, version, func(ctx context.Context, tx *sqlutil.Tx, b *storage.Backup) (bool, error) {
		change, err := s.store.DeleteBackupKey(ctx, tx, b.NID, room, session)
		if err != nil {
			return false, err
		}
		return false, s.move(ctx, tx, user, b, change)
	})
}

// DeleteRoomKeys is DeleteKey for all sessions of a room.
func (s *Service) DeleteRoomKeys(ctx context.Context, user id.UserID, version string, room id.RoomID) (State, error) {
	return s.remove(ctx, user, version, func(ctx context.Context, tx *sqlutil.Tx, b *storage.Backup) (bool, error) {
		change, err := s.store.DeleteRoomKeys(ctx, tx, b.NID, room, sweepAtOnce)
		if err != nil {
			return false, err
		}
		return -change.Sessions == sweepAtOnce, s.move(ctx, tx, user, b, change)
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
		err := s.store.DB.Write(ctx, "delete keys of a backup", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
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
