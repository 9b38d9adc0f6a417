package pdu

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"slices"

	"github.com/matrix-org/gomatrixserverlib"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
)

// Sign adds a signature to an event that another server built, as the server of an invited user does, or that of the user who
// authorised a restricted join. A signature of the same key is replaced.
func Sign(e *Event, s Signer) (*Event, error) {
	own := appendSignature(nil, s, ed25519.Sign(s.PrivateKey, e.SignedBytes()))
	// Written in front or behind, and put in order by the canonical form: of duplicates the last one counts.
	merged := []byte{'{'}
	theirs := lookup(e.json, "signatures")
	ofServer := Member(theirs, string(s.ServerName))
	if len(theirs) > 2 {
		merged = append(append(merged, theirs[1:len(theirs)-1]...), ',')
	}
	if len(ofServer) > 2 {
		colon := bytes.IndexByte(own, '{')
		own = slices.Concat(own[:colon+1], ofServer[1:len(ofServer)-1], []byte{','}, own[colon+1:])
	}
	merged = append(append(merged, own...), '}')

	out := append(make([]byte, 0, len(e.json)+len(own)), `{"signatures":`...)
	out = append(out, merged...)
	eachMember(e.json, func(key, value []byte) {
		if string(key) != "signatures" {
			out = append(appendKey(out, 0, key), value...)
		}
	})
	signed, err := canonical(make([]byte, 0, len(out)+1), append(out, '}'), false)
	if err != nil {
		return nil, err
	}
	if len(signed) > MaxBytes {
		return nil, mxerr.TooLarge("with the signature of %s the event has %d bytes, of at most %d", s.ServerName, len(signed), MaxBytes)
	}
	return e.withJSON(signed), nil
}

// withJSON is the event with JSON that differs in signatures only.
func (e *Event) withJSON(canonicalJSON []byte) *Event {
	c := *e
	c.json = canonicalJSON
	c.content = lookup(canonicalJSON, "content")
	return &c
}

// appendSignature writes "server":{"key":"signature"}.
func appendSignature(dst []byte, s Signer, signature []byte) []byte {
	dst = append(AppendString(dst, s.ServerName), ":{"...)
	dst = append(AppendString(dst, s.KeyID), ':')
	return append(AppendString(dst, base64.RawStdEncoding.EncodeToString(signature)), '}')
}

func trimQuotes(text []byte) []byte { return text[1 : len(text)-1] }

// SignedBytes is what the event's signatures are of: its redacted form without signatures.
func (e *Event) SignedBytes() []byte {
	return e.appendRedacted(make([]byte, 0, len(e.json)), false)
}

// Signatures returns the signatures of one server by key, decoded. Those that are not base64 are left out.
func (e *Event) Signatures(server id.ServerName) map[gomatrixserverlib.KeyID][]byte {
	found := map[gomatrixserverlib.KeyID][]byte{}
	ofServer := Member(lookup(e.json, "signatures"), string(server))
	EachMember(ofServer, func(key string, value []byte) {
		if signature, err := decodeBase64(optionalString(value)); err == nil {
			found[gomatrixserverlib.KeyID(key)] = signature
		}
	})
	return found
}

// VerifySignature checks one signature (Appendices, § Checking for a Signature, steps 4 to 7). It is false if there is none.
func (e *Event) VerifySignature(server id.ServerName, keyID gomatrixserverlib.KeyID, key ed25519.PublicKey) bool {
	signature, signed := e.Signatures(server)[keyID]
	return signed && len(key) == ed25519.PublicKeySize && ed25519.Verify(key, e.SignedBytes(), signature)
}

// SignaturesNeeded lists the servers whose valid signature an event must have (Server-Server API, § Validating hashes and
// signatures on received events): the sender's, except for third-party invites, which another server may send; in room
// versions 1 and 2 that of the event id; and in versions with restricted joins that of the user who authorised the join.
func (e *Event) SignaturesNeeded() []id.ServerName {
	var servers []id.ServerName
	if !(e.membership == "invite" && lookup(e.content, "third_party_invite") != nil) {
		servers = append(servers, e.sender.Server())
	}
	if !e.props.HashIDs() && !slices.Contains(servers, e.id.Server()) {
		servers = append(servers, e.id.Server())
	}
	if authoriser := e.AuthorisedVia(); authoriser != "" && !slices.Contains(servers, authoriser.Server()) {
		servers = append(servers, authoriser.Server())
	}
	return servers
}

// AuthorisedVia is the user who authorised a restricted join (content.join_authorised_via_users_server); empty if the event
// names none, and in room versions without restricted joins.
func (e *Event) AuthorisedVia() id.UserID {
	if e.eventType != TypeMember || !e.props.Restricted {
		return ""
	}
	return id.UserID(optionalString(lookup(e.content, "join_authorised_via_users_server")))
}
