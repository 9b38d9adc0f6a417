package api

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// Root names a state of a room: the hash of the root node of its state trie. The zero Root is the empty state. Roots are
// compared with ==, and equal roots of one room are equal states.
type Root [16]byte

// IsZero tells whether r is the empty state.
func (r Root) IsZero() bool { return r == Root{} }

func (r Root) String() string { return hex.EncodeToString(r[:]) }

// MarshalText writes the root as hexadecimal digits; the empty state as nothing.
func (r Root) MarshalText() ([]byte, error) {
	if r.IsZero() {
		return []byte{}, nil
	}
	return hex.AppendEncode(nil, r[:]), nil
}

// UnmarshalText reads what MarshalText wrote.
func (r *Root) UnmarshalText(text []byte) error {
	*r = Root{}
	if len(text) == 0 {
		return nil
	}
	if len(text) != hex.EncodedLen(len(r)) {
		return fmt.Errorf("a state root has %d hexadecimal digits, not %d", hex.EncodedLen(len(r)), len(text))
	}
	_, err := hex.Decode(r[:], text)
	return err
}

// OrderKey is the place of a timeline event in its room. Live events append to their segment; history that is fetched from
// other servers later goes into segments before or between. Keys of one room are compared by segment, then index.
type OrderKey struct {
	Segment int64
	Index   int64
}

// Compare is negative when o comes before p.
func (o OrderKey) Compare(p OrderKey) int {
	switch {
	case o.Segment != p.Segment && o.Segment < p.Segment, o.Segment == p.Segment && o.Index < p.Index:
		return -1
	case o == p:
		return 0
	}
	return 1
}

// Token is the form in which clients get an order key: the prev_batch of /sync, start and end of /messages. It stands for
// the gap right after the event with this key.
func (o OrderKey) Token() string {
	return "t" + strconv.FormatInt(o.Segment, 10) + "_" + strconv.FormatInt(o.Index, 10)
}

// ParseOrderToken reads what Token wrote. It fails for anything else, sync tokens included.
func ParseOrderToken(s string) (OrderKey, error) {
	segment, index, found := strings.Cut(strings.TrimPrefix(s, "t"), "_")
	if !found || !strings.HasPrefix(s, "t") {
		return OrderKey{}, fmt.Errorf("%q is not a token of /messages", s)
	}
	var o OrderKey
	var err error
	if o.Segment, err = strconv.ParseInt(segment, 10, 64); err != nil {
		return OrderKey{}, fmt.Errorf("%q is not a token of /messages: %w", s, err)
	}
	if o.Index, err = strconv.ParseInt(index, 10, 64); err != nil {
		return OrderKey{}, fmt.Errorf("%q is not a token of /messages: %w", s, err)
	}
	return o, nil
}

// StateKeyTuple is what state is keyed by: the type and the state key.
type StateKeyTuple struct {
	Type     string `json:"t"`
	StateKey string `json:"k"`
}
