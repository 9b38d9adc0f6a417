package pdu

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"slices"
	"strings"

	"github.com/matrix-org/dendrite/common/id"
)

// Redact returns the event's redacted form by the algorithm of its room version (§ Redactions), which has the same id. It
// has no unsigned.
func (e *Event) Redact() *Event {
	r := *e
	r.json = e.appendRedacted(make([]byte, 0, len(e.json)), true)
	r.unsigned = nil
	r.content = lookup(r.json, "content")
	r.readContent(lookup(r.json, "redacts"))
	return &r
}

// appendRedacted writes the redacted event, which stays canonical because members are only left out. Without signatures it is
// what is signed, and what the reference hash is of.
func (e *Event) appendRedacted(dst []byte, signatures bool) []byte {
	begin := len(dst)
	dst = append(dst, '{')
	eachMember(e.json, func(key, value []byte) {
		if !slices.Contains(e.props.Redaction.Keep, string(key)) || !signatures && string(key) == "signatures" {
			return
		}
		dst = appendKey(dst, begin, key)
		if string(key) == "content" {
			dst = e.appendRedactedContent(dst)
		} else {
			dst = append(dst, value...)
		}
	})
	return append(dst, '}')
}

func (e *Event) appendRedactedContent(dst []byte) []byte {
	rules := e.props.Redaction
	if slices.Contains(rules.KeepContent, e.eventType) {
		return append(dst, e.content...)
	}
	return appendKept(dst, e.content, rules.Content[e.eventType])
}

// appendKept writes the members of an object that are listed, where "a.b" lists the member b of the object a.
func appendKept(dst, object []byte, keep []string) []byte {
	begin := len(dst)
	dst = append(dst, '{')
	eachMember(object, func(key, value []byte) {
		if slices.Contains(keep, string(key)) {
			dst = append(appendKey(dst, begin, key), value...)
			return
		}
		for _, path := range keep {
			outer, inner, nested := strings.Cut(path, ".")
			// The outer object stays, even if nothing in it does.
			if nested && outer == string(key) && value[0] == '{' {
				dst = appendKept(appendKey(dst, begin, key), value, []string{inner})
			}
		}
	})
	return append(dst, '}')
}

// appendKey begins a member of the object that begins at an offset of dst.
func appendKey(dst []byte, begin int, key []byte) []byte {
	if len(dst) > begin+1 {
		dst = append(dst, ',')
	}
	dst = append(dst, '"')
	dst = append(dst, key...)
	return append(dst, '"', ':')
}

// appendMembers writes an object with those of its members whose keys are wanted.
func appendMembers(dst, object []byte, want func(key string) bool) []byte {
	begin := len(dst)
	dst = append(dst, '{')
	eachMember(object, func(key, value []byte) {
		if want(string(key)) {
			dst = append(appendKey(dst, begin, key), value...)
		}
	})
	return append(dst, '}')
}

// ContentHash is the hash of the whole event (Server-Server API, § Calculating the content hash for an event).
func (e *Event) ContentHash() [sha256.Size]byte {
	return sha256.Sum256(appendMembers(make([]byte, 0, len(e.json)), e.json, func(key string) bool {
		return key != "hashes" && key != "signatures"
	}))
}

// CheckContentHash tells whether the event has the content that its sender hashed. Where not, it must be redacted before it is
// processed further.
func (e *Event) CheckContentHash() bool {
	claimed, err := decodeBase64(optionalString(lookup(lookup(e.json, "hashes"), "sha256")))
	if err != nil {
		return false
	}
	hash := e.ContentHash()
	return bytes.Equal(claimed, hash[:])
}

// ReferenceHash is the hash of the event's essential fields (Server-Server API, § Calculating the reference hash for an
// event).
func (e *Event) ReferenceHash() [sha256.Size]byte {
	return sha256.Sum256(e.appendRedacted(make([]byte, 0, len(e.json)), false))
}

func (e *Event) computeID() id.EventID {
	hash := e.ReferenceHash()
	return hashID(e.props.EventIDs, hash[:])
}

// decodeBase64 is lenient about padding, as the specification asks (Appendices, § Unpadded Base64).
func decodeBase64(s string) ([]byte, error) {
	return base64.RawStdEncoding.DecodeString(strings.TrimRight(s, "="))
}
