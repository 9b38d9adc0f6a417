// Package accountdata keeps what users store for their clients, of their account and of rooms (Client-Server API,
// § Client Config), the tags of rooms among it (§ Room Tagging). Each user has a quota. What the server itself sets,
// the fully-read markers and the push rules, is not counted: there is one marker for each room, and the rules have
// bounds of their own.
package accountdata

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/sqlutil"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/syncapi/storage"
)

// Types of account data that have endpoints of their own.
const (
	FullyRead = "m.fully_read"
	Tags      = "m.tag"
)

// The type of direct chats (Client-Server API, § Direct Messaging).
const direct = "m.direct"

const (
	// MaxBytes is how much account data a user may keep. Somebody with 10,000 rooms who has tagged all of them, has
	// marked all as unread, has a direct chat in each and ignores 10,000 users needs about 5 MB. An initial sync has
	// all of it.
	MaxBytes = 8 << 20
	// rowBytes is what an entry costs beside its names and its content. The number of entries is bounded by it. A
	// migration has it too.
	rowBytes = 128
)

// Service changes account data. Changes come one after the other, on all replicas.
type Service struct {
	Storage *storage.Database
	Room    *roomserver.RoomserverAPI
}

// key names an entry.
type key struct {
	user     id.UserID
	room     id.RoomID // empty for what is of no room
	dataType string
}

// Get returns an entry; nil if there is none.
func (s *Service) Get(
	ctx context.Context, user id.UserID, room id.RoomID, dataType string,
) (content json.RawMessage, err error) {
	err = s.Storage.Read(ctx, "account data", func(ctx context.Context, tx *sqlutil.Tx) error {
		content, err = s.Storage.AccountDataOne(ctx, tx, user, room, dataType)
		return err
	})
	return content, err
}

// Put replaces an entry. M_FORBIDDEN for a room that the user was never in, M_TOO_LARGE beyond the quota. What does not
// make an entry larger is always allowed.
func (s *Service) Put(
	ctx context.Context, user id.UserID, room id.RoomID, dataType string, content json.RawMessage,
) error {
	return s.change(ctx, key{user, room, dataType}, func(old json.RawMessage) (json.RawMessage, error) {
		if room != "" && dataType == Tags {
			return content, checkTags(old, content)
		}
		return content, nil
	})
}

// changing makes of the content of an entry, nil if there is none, what it shall be, or nil to leave it as it is.
type changing func(old json.RawMessage) (json.RawMessage, error)

// change replaces an entry by what change makes of it.
func (s *Service) change(ctx context.Context, k key, change changing) error {
	grow := s.within(MaxBytes)
	known, err := s.knows(ctx, k)
	if err != nil {
		return err
	}
	if !known {
		grow = func(context.Context, *sqlutil.Tx, key, int64) error {
			return mxerr.Forbidden("you have never been in room %s: join it first", k.room)
		}
	}
	return s.write(ctx, "account data", 1, func(ctx context.Context, tx *sqlutil.Tx, w *writing) error {
		return w.change(ctx, tx, k, change, grow)
	})
}

// knows tells whether the user is, or has been, something in the room. It says nothing else of rooms: whoever was never
// in one does not learn whether it exists.
func (s *Service) knows(ctx context.Context, k key) (bool, error) {
	if k.room == "" {
		return true, nil
	}
	m, err := s.Room.QueryMembership(ctx, roomserver.QueryMembershipRequest{RoomID: k.room, UserID: k.user})
	if err != nil {
		return false, fmt.Errorf("membership: %w", err)
	}
	return m.Membership != "", nil
}

// write runs a write of account data. A refusal is an answer to its user alone: it does not undo what others write with
// it.
func (s *Service) write(
	ctx context.Context, name string, most int, fn func(context.Context, *sqlutil.Tx, *writing) error,
) error {
	var refusal error
	place := func(ctx context.Context, tx *sqlutil.Tx, pos int64) (*storage.Changes, error) {
		w := &writing{Service: s, pos: pos}
		refusal = fn(ctx, tx, w)
		if _, is := mxerr.As(refusal); refusal != nil && !is {
			return nil, refusal
		}
		return &w.changes, nil
	}
	if err := s.Storage.Write(ctx, name, most, place); err != nil {
		return err
	}
	return refusal
}

// writing is one write. Its rows have consecutive positions.
type writing struct {
	*Service
	pos     int64
	changes storage.Changes
}

// change replaces an entry by what change makes of it. grow is asked where it becomes larger.
func (w *writing) change(ctx context.Context, tx *sqlutil.Tx, k key, change changing, grow growing) error {
	old, err := w.read(ctx, tx, k)
	if err != nil {
		return err
	}
	content, err := change(old)
	if err != nil || content == nil {
		return err
	}
	switch more := k.size(content) - k.size(old); {
	case more > 0:
		err = grow(ctx, tx, k, more)
	case more < 0:
		err = w.Storage.ShrinkAccountData(ctx, tx, k.user, -more)
	}
	if err == nil {
		w.put(k, content)
	}
	return err
}

func (w *writing) read(ctx context.Context, tx *sqlutil.Tx, k key) (json.RawMessage, error) {
	return w.Storage.AccountDataOne(ctx, tx, k.user, k.room, k.dataType)
}

func (w *writing) put(k key, content json.RawMessage) {
	w.changes.AccountData = append(w.changes.AccountData,
		storage.AccountData{UserID: k.user, RoomID: k.room, Type: k.dataType, Content: content,
			Pos: w.pos + int64(len(w.changes.AccountData))})
}

// size is what an entry counts; nothing if it is not there.
func (k key) size(content json.RawMessage) int64 {
	if content == nil {
		return 0
	}
	return int64(len(k.room) + len(k.dataType) + len(content) + rowBytes)
}

// growing counts what an entry grows by, or refuses it.
type growing func(ctx context.Context, tx *sqlutil.Tx, k key, bytes int64) error

// within refuses what makes the user's account data larger than most bytes.
func (s *Service) within(most int64) growing {
	return func(ctx context.Context, tx *sqlutil.Tx, k key, bytes int64) error {
		fits, err := s.Storage.GrowAccountData(ctx, tx, k.user, bytes, most)
		if err == nil && !fits {
			err = mxerr.TooLarge("you may keep %d bytes of account data, and %s would be beyond: "+
				"replace what you no longer need by {}", most, k.dataType)
		}
		return err
	}
}
