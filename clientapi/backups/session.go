package backups

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/common/rawjson"
)

// Session is a session with its key in a backup.
type Session struct {
	RoomID            id.RoomID
	SessionID         string
	IsVerified        bool
	FirstMessageIndex int64
	ForwardedCount    int64
	SessionData       json.RawMessage
}

// appendMember writes a session as a member of a JSON object: its id, and its key (KeyBackupData).
func (k *Session) appendMember(to []byte) []byte {
	to = append(pdu.AppendString(to, k.SessionID), ':')
	to = strconv.AppendInt(append(to, `{"first_message_index":`...), k.FirstMessageIndex, 10)
	to = strconv.AppendInt(append(to, `,"forwarded_count":`...), k.ForwardedCount, 10)
	to = strconv.AppendBool(append(to, `,"is_verified":`...), k.IsVerified)
	return append(append(append(to, `,"session_data":`...), k.SessionData...), '}')
}

// name stands for the id of a session: no two ids have one name.
type name [16]byte

func nameOf(session string) (n name) {
	sum := sha256.Sum256([]byte(session))
	copy(n[:], sum[:])
	return n
}

// rank is what is known of a session in a block without its text.
type rank struct {
	name       name
	unverified bool
	index      int64 // first_message_index
	forwarded  int64 // forwarded_count
	size       int64 // bytes of session_data
}

func (k *Session) rank() rank {
	return rank{nameOf(k.SessionID), !k.IsVerified, k.FirstMessageIndex, k.ForwardedCount, int64(len(k.SessionData))}
}

// isBetter tells which of two keys stays (Client-Server API, § Backup algorithm): one that is verified, else one of the
// lower first_message_index, else one of the lower forwarded_count.
func (r *rank) isBetter(than *rank) bool {
	if r.unverified != than.unverified {
		return than.unverified
	}
	return cmp.Or(cmp.Compare(r.index, than.index), cmp.Compare(r.forwarded, than.forwarded)) < 0
}

func (r *rank) append(to []byte) []byte {
	flag := uint64(0)
	if r.unverified {
		flag = 1
	}
	to = binary.AppendUvarint(append(to, r.name[:]...), uint64(r.index)<<1|flag)
	return binary.AppendUvarint(binary.AppendUvarint(to, uint64(r.forwarded)), uint64(r.size))
}

var errRanks = errors.New("the ranks of a block of a backup are damaged")

// readRanks calls visit for each session of a block.
func readRanks(text []byte, visit func(*rank)) error {
	var r rank
	for len(text) > 0 {
		if len(text) < len(r.name) {
			return errRanks
		}
		text = text[copy(r.name[:], text):]
		for _, into := range []*int64{&r.index, &r.forwarded, &r.size} {
			n, length := binary.Uvarint(text)
			if length <= 0 {
				return errRanks
			}
			*into, text = int64(n), text[length:]
		}
		r.unverified, r.index = r.index&1 == 1, r.index>>1
		visit(&r)
	}
	return nil
}

// members visits the sessions of a block.
func members(sessions []byte, visit func(session string, key json.RawMessage)) error {
	text := append(append(append(make([]byte, 0, len(sessions)+2), '{'), sessions...), '}')
	_, err := rawjson.Members(text, func(name string, value json.RawMessage) error {
		visit(name, value)
		return nil
	})
	if err != nil {
		return fmt.Errorf("sessions of a block of a backup: %w", err)
	}
	return nil
}
