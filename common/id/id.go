// Package id holds the typed identifiers of the Matrix specification (Appendices, § Identifier Grammar).
//
// Ids are parsed once, where they enter the process, and trusted inside: a value that came out of a Parse function, or out
// of our own storage, has the form its type names. They are plain strings below, so that they cost nothing to keep, compare,
// marshal and store.
package id

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/matrix-org/gomatrixserverlib/spec"
)

// MaxLength is the longest that a user id, room id, alias or event id may be, in bytes, sigil and domain included.
const MaxLength = 255

type (
	// ServerName is a homeserver's name: host and optional port.
	ServerName = spec.ServerName
	// UserID is @localpart:server.
	UserID string
	// RoomID is !opaque:server, or from room version 12 on !hash without a server.
	RoomID string
	// RoomAlias is #name:server.
	RoomAlias string
	// EventID is $opaque:server in room versions 1 and 2, and $hash from 3 on.
	EventID string
	// DeviceID names a device of a user; it is opaque.
	DeviceID string
	// RoomVersion names a room version, such as "11".
	RoomVersion string
)

// ParseUserID checks the form of a user id. Historical localparts are accepted, as the specification asks of ids that come
// from other servers (Appendices, § Historical User IDs).
func ParseUserID(s string) (UserID, error) {
	local, err := split(s, '@', "user id")
	if err != nil {
		return "", err
	}
	if strings.ContainsRune(local, 0) {
		return "", fmt.Errorf("user id %q contains a NUL", s)
	}
	return UserID(s), nil
}

// NewUserID joins a localpart and a server.
func NewUserID(localpart string, server ServerName) UserID {
	return UserID("@" + localpart + ":" + string(server))
}

// Localpart is the part between the sigil and the first colon.
func (u UserID) Localpart() string { return local(string(u)) }

// Server is the part after the first colon.
func (u UserID) Server() ServerName { return server(string(u)) }

// ParseRoomID checks the form of a room id of any room version.
func ParseRoomID(s string) (RoomID, error) {
	if len(s) < 2 || s[0] != '!' {
		return "", fmt.Errorf("room id %q does not begin with '!'", s)
	}
	if len(s) > MaxLength {
		return "", fmt.Errorf("room id is longer than %d bytes", MaxLength)
	}
	if !utf8.ValidString(s) || strings.ContainsRune(s, 0) {
		return "", fmt.Errorf("room id %q has bytes that are not allowed", s)
	}
	if strings.Contains(s, ":") {
		if _, err := split(s, '!', "room id"); err != nil {
			return "", err
		}
	}
	return RoomID(s), nil
}

// Server is the part after the first colon; empty for room ids of room version 12 and later, which have none.
func (r RoomID) Server() ServerName { return server(string(r)) }

// ParseRoomAlias checks the form of a room alias.
func ParseRoomAlias(s string) (RoomAlias, error) {
	name, err := split(s, '#', "room alias")
	if err != nil {
		return "", err
	}
	if name == "" || strings.ContainsRune(name, 0) {
		return "", fmt.Errorf("room alias %q has no valid localpart", s)
	}
	return RoomAlias(s), nil
}

// Localpart is the part between the sigil and the first colon.
func (a RoomAlias) Localpart() string { return local(string(a)) }

// Server is the part after the first colon.
func (a RoomAlias) Server() ServerName { return server(string(a)) }

// ParseEventID checks the form of an event id of any room version.
func ParseEventID(s string) (EventID, error) {
	switch {
	case len(s) < 2 || s[0] != '$':
		return "", fmt.Errorf("event id %q does not begin with '$'", s)
	case len(s) > MaxLength:
		return "", fmt.Errorf("event id is longer than %d bytes", MaxLength)
	case !utf8.ValidString(s) || strings.ContainsRune(s, 0):
		return "", fmt.Errorf("event id %q has bytes that are not allowed", s)
	}
	return EventID(s), nil
}

// Server is the part after the first colon; empty for hash ids.
func (e EventID) Server() ServerName { return server(string(e)) }

// ParseServerName checks the form of a server name (Appendices, § Server Name).
func ParseServerName(s string) (ServerName, error) {
	if _, _, valid := spec.ParseAndValidateServerName(ServerName(s)); !valid {
		return "", fmt.Errorf("%q is not a server name: want a host name, an IPv4 address or an IPv6 address in brackets, with an optional port", s)
	}
	return ServerName(s), nil
}

func split(s string, sigil byte, what string) (string, error) {
	switch {
	case len(s) == 0 || s[0] != sigil:
		return "", fmt.Errorf("%s %q does not begin with %q", what, s, string(sigil))
	case len(s) > MaxLength:
		return "", fmt.Errorf("%s is longer than %d bytes", what, MaxLength)
	case !utf8.ValidString(s):
		return "", fmt.Errorf("%s is not valid UTF-8", what)
	}
	name, domain, found := strings.Cut(s[1:], ":")
	if !found {
		return "", fmt.Errorf("%s %q has no server name", what, s)
	}
	if _, err := ParseServerName(domain); err != nil {
		return "", fmt.Errorf("%s %q: %w", what, s, err)
	}
	return name, nil
}

func local(s string) string {
	name, _, _ := strings.Cut(s, ":")
	if name == "" {
		return ""
	}
	return name[1:]
}

func server(s string) ServerName {
	_, domain, _ := strings.Cut(s, ":")
	return ServerName(domain)
}
