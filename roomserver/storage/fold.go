package storage

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"math/bits"

	"github.com/matrix-org/dendrite/common/id"
)

// Half of a message is base64: the events that it refers to, hashes and signatures. Compression makes nothing of it, so its long runs are
// replaced by the bytes that they stand for, which are three quarters of it: a mark that JSON cannot have, twice the number of bytes and
// which alphabet, the bytes. The room has a mark alone: its row is read with the event.
const (
	foldMark  = 1
	roomMark  = 2
	leastFold = 32
)

// base64Alphabets are that of identifiers and that of hashes.
var base64Alphabets = [2]*base64.Encoding{base64.RawURLEncoding.Strict(), base64.RawStdEncoding.Strict()}

// inAlphabets has for each character in which alphabets it is, as bits.
var inAlphabets = func() (in [256]byte) {
	for c := range in {
		for i, alphabet := range base64Alphabets {
			if _, err := alphabet.Decode(make([]byte, 3), []byte{'A', 'A', 'A', byte(c)}); err == nil && c != '\n' && c != '\r' {
				in[c] |= 1 << i
			}
		}
	}
	return in
}()

// fold replaces the room, and runs of base64, in JSON that has none of the marks.
func fold(json []byte, room id.RoomID) []byte {
	json = bytes.ReplaceAll(json, quoted(room), []byte{roomMark})
	dst := make([]byte, 0, len(json))
	var raw [64]byte
	copied := 0
	for from := 0; from+leastFold <= len(json); {
		// What is in no alphabet ends a run: the last such byte is where the next one can begin.
		in, at := byte(1|2), from+leastFold
		for at > from && in&inAlphabets[json[at-1]] != 0 {
			at--
			in &= inAlphabets[json[at]]
		}
		if at > from {
			from = at
			continue
		}
		end := from + leastFold
		for end < len(json) && in&inAlphabets[json[end]] != 0 {
			in &= inAlphabets[json[end]]
			end++
		}
		which := bits.TrailingZeros8(in)
		decoded, err := base64Alphabets[which].AppendDecode(raw[:0], json[from:end])
		if err != nil { // as a whole it is not the base64 of anything: all but its end is, as four characters are always three bytes
			end -= (end - from) % 4
			decoded, _ = base64Alphabets[which].AppendDecode(raw[:0], json[from:end])
		}
		dst = append(append(dst, json[copied:from]...), foldMark)
		dst = append(binary.AppendUvarint(dst, uint64(2*len(decoded)+which)), decoded...)
		from, copied = end, end
	}
	return append(dst, json[copied:]...)
}

var errFolded = errors.New("base64 is not stored as this version does")

func quoted(room id.RoomID) []byte { return []byte(`"` + room + `"`) }

// unfold gives the JSON that was folded, in no more room than it needs.
func unfold(folded []byte, room id.RoomID) ([]byte, error) {
	size := 0
	err := eachFold(folded, func(plain []byte, alphabet *base64.Encoding, raw []byte) {
		size += len(plain) + bytes.Count(plain, []byte{roomMark})*(len(room)+1) + alphabet.EncodedLen(len(raw))
	})
	if err != nil {
		return nil, err
	}
	json := make([]byte, 0, size)
	err = eachFold(folded, func(plain []byte, alphabet *base64.Encoding, raw []byte) {
		for at := bytes.IndexByte(plain, roomMark); at >= 0; at = bytes.IndexByte(plain, roomMark) {
			json = append(append(append(append(json, plain[:at]...), '"'), room...), '"')
			plain = plain[at+1:]
		}
		json = alphabet.AppendEncode(append(json, plain...), raw)
	})
	return json, err
}

// eachFold calls do for each run, with what is before it; and for what is after the last with nothing after that.
func eachFold(folded []byte, do func(plain []byte, alphabet *base64.Encoding, raw []byte)) error {
	for {
		at := bytes.IndexByte(folded, foldMark)
		if at < 0 {
			do(folded, base64Alphabets[0], nil)
			return nil
		}
		n, length := binary.Uvarint(folded[at+1:])
		raw := at + 1 + length
		if length <= 0 || n/2 > uint64(len(folded)-raw) {
			return errFolded
		}
		end := raw + int(n/2)
		do(folded[:at], base64Alphabets[n%2], folded[raw:end])
		folded = folded[end:]
	}
}
