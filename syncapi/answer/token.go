package answer

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
)

// Token is what a client has seen: next_batch of one sync, and since of the next. The zero Token has seen nothing.
type Token struct {
	Pos       int64 // of all streams but those below
	ToDevice  int64 // up to where the messages to a device were handed out
	Ephemeral int64 // number of the last change of typing or presence

	// device says to which device the messages were handed out. To every other ToDevice means nothing.
	device string
}

// The first parts of tokens, by their forms. Those without a device are of releases before, and of answers that have no
// messages to devices.
const (
	tokenVersion = "s1"
	boundVersion = "s2"
)

// deviceBytes is how much of a hash stands for a device. It tells apart the devices of one user.
const deviceBytes = 6

func (t Token) String() string {
	version, parts := tokenVersion, []int64{t.Pos, t.ToDevice, t.Ephemeral}
	if t.device != "" {
		version = boundVersion
	}
	b := []byte(version)
	for _, n := range parts {
		b = strconv.AppendInt(append(b, '_'), n, 10)
	}
	if t.device != "" {
		b = append(append(b, '_'), t.device...)
	}
	return string(b)
}

// ParseToken reads a token. M_INVALID_PARAM if it is none of ours.
func ParseToken(s string) (Token, error) {
	parts := strings.Split(s, "_")
	var t Token
	switch {
	case len(parts) == 4 && parts[0] == tokenVersion:
	case len(parts) == 5 && parts[0] == boundVersion && isDevice(parts[4]):
		t.device = parts[4]
	default:
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

func isDevice(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == deviceBytes
}

func badToken(s string) error {
	return mxerr.InvalidParam("%q is no token of this server's /sync: sync without a token first", s)
}

// bind makes the token one of a device: to it nothing was handed out by a token of another.
func (t *Token) bind(user id.UserID, device id.DeviceID) {
	hash := sha256.Sum256([]byte(string(user) + "\x00" + string(device)))
	if of := hex.EncodeToString(hash[:deviceBytes]); t.device != of {
		t.ToDevice, t.device = 0, of
	}
}
