package answer

import (
	"strconv"
	"strings"

	"github.com/matrix-org/dendrite/common/mxerr"
)

// Token is what a client has seen: next_batch of one sync, and since of the next. The zero Token has seen nothing.
type Token struct {
	Pos       int64 // of all streams but those below
	ToDevice  int64 // of the last message to the device that was handed out
	Ephemeral int64 // number of the last change of typing or presence
}

// tokenVersion is the first part of a token. A token of another form gets another one.
const tokenVersion = "s1"

func (t Token) String() string {
	return tokenVersion + "_" + strconv.FormatInt(t.Pos, 10) + "_" + strconv.FormatInt(t.ToDevice, 10) + "_" + strconv.FormatInt(t.Ephemeral, 10)
}

// ParseToken reads a token. M_INVALID_PARAM if it is none of ours.
func ParseToken(s string) (Token, error) {
	parts := strings.Split(s, "_")
	var t Token
	if len(parts) != 4 || parts[0] != tokenVersion {
		return t, badToken(s)
	}
	for i, field := range []*int64{&t.Pos, &t.ToDevice, &t.Ephemeral} {
		n, err := strconv.ParseInt(parts[i+1], 10, 64)
		if err != nil || n < 0 {
			return t, badToken(s)
		}
		*field = n
	}
	return t, nil
}

func badToken(s string) error {
	return mxerr.InvalidParam("%q is no token of this server's /sync: sync without a token first", s)
}
