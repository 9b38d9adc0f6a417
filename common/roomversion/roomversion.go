// Package roomversion is the one table of what differs between room versions (Room Versions, § Complete list of room
// versions). Code branches on a property of a version, never on its name; a new version is one more row.
package roomversion

import (
	"slices"

	"github.com/matrix-org/dendrite/common/id"
)

// Default is the version of rooms that are created without the wish for another.
const Default id.RoomVersion = "12"

// EventIDs says where an event's id comes from.
type EventIDs int

const (
	// EventIDGiven: the creating server picks it and it travels in the event, and references to other events are pairs
	// of id and hash.
	EventIDGiven EventIDs = iota
	// EventIDHash: it is the reference hash in standard base64, and references are ids.
	EventIDHash
	// EventIDURLSafeHash: it is the reference hash in URL-safe base64, and references are ids.
	EventIDURLSafeHash
)

// StateResolution names an algorithm.
type StateResolution int

const (
	// StateResV1 is the algorithm of room version 1.
	StateResV1 StateResolution = iota
	// StateResV2 is the algorithm of room versions 2 to 11.
	StateResV2
	// StateResV21 is v2 that begins from an empty state and adds the conflicted state subgraph.
	StateResV21
)

// PowerLevelForm says which values of m.room.power_levels count as integers.
type PowerLevelForm int

const (
	// LevelsLenient takes integers, strings of integers, and floats, which are truncated.
	LevelsLenient PowerLevelForm = iota
	// LevelsOrStrings takes integers and strings of integers.
	LevelsOrStrings
	// LevelsStrict takes integers only, and checks every property.
	LevelsStrict
)

// Redaction is a redaction algorithm.
type Redaction struct {
	// Keep has the top-level keys that stay.
	Keep []string
	// Content has the keys of content that stay, by event type. A key with a dot names a key of a nested object.
	Content map[string][]string
	// KeepContent has the event types whose content stays whole.
	KeepContent []string
}

// Properties is what anything branches on.
type Properties struct {
	Version id.RoomVersion
	// EventIDs says where ids come from, and so how events refer to each other.
	EventIDs EventIDs
	// StateResolution is the algorithm that merges forks.
	StateResolution StateResolution
	// StrictJSON: events whose JSON is outside Canonical JSON (floats, large integers) are not valid.
	StrictJSON bool
	// MaxDepth is the largest depth of an event.
	MaxDepth int64
	// KeyValidity: a signing key must be valid at the event's origin_server_ts.
	KeyValidity bool
	// Redaction is the redaction algorithm.
	Redaction *Redaction
	// RedactsInContent: m.room.redaction names its target in content, not at the top level.
	RedactsInContent bool
	// RedactionAuth: redactions are subject to an authorization rule of their own.
	RedactionAuth bool
	// AliasesAuth: m.room.aliases has an authorization rule of its own.
	AliasesAuth bool
	// NotificationLevels: the rules about changes of power levels look at notifications too.
	NotificationLevels bool
	// PowerLevels says which values of power levels are valid.
	PowerLevels PowerLevelForm
	// Knock, Restricted and KnockRestricted are the join rules (and the membership) that exist.
	Knock, Restricted, KnockRestricted bool
	// CreatorInContent: m.room.create has a creator property; without, the creator is the sender.
	CreatorInContent bool
	// PrivilegedCreators: the room's creators have infinite power level, and there may be additional ones.
	PrivilegedCreators bool
	// RoomIDIsCreateHash: the room id is the create event's id with another sigil, so the create event has no room_id and
	// no event has the create event in its auth_events.
	RoomIDIsCreateHash bool
}

// HashIDs tells whether event ids are hashes.
func (p *Properties) HashIDs() bool { return p.EventIDs != EventIDGiven }

// Get returns the properties of a version; false if it is not known. They must not be changed.
func Get(v id.RoomVersion) (*Properties, bool) {
	p, ok := byVersion[v]
	return p, ok
}

// All lists the known versions, oldest first. All of them are stable.
func All() []id.RoomVersion {
	all := make([]id.RoomVersion, len(table))
	for i := range table {
		all[i] = table[i].Version
	}
	return all
}

// Supported tells whether a version is known.
func Supported(v id.RoomVersion) bool { _, ok := byVersion[v]; return ok }

const (
	maxInt64     = 1<<63 - 1
	maxCanonical = 1<<53 - 1
)

var table, byVersion = build()

// build writes each version as the changes to the version that it is based on, as the specification does.
func build() ([]Properties, map[id.RoomVersion]*Properties) {
	var all []Properties
	p := Properties{MaxDepth: maxInt64, Redaction: redactionV1, RedactionAuth: true, AliasesAuth: true, CreatorInContent: true}
	add := func(v id.RoomVersion) { p.Version = v; all = append(all, p) }
	add("1")
	p.StateResolution = StateResV2
	add("2")
	p.EventIDs, p.RedactionAuth = EventIDHash, false
	add("3")
	p.EventIDs = EventIDURLSafeHash
	add("4")
	p.KeyValidity = true
	add("5")
	p.StrictJSON, p.MaxDepth, p.PowerLevels = true, maxCanonical, LevelsOrStrings
	p.Redaction, p.AliasesAuth, p.NotificationLevels = redactionV6, false, true
	add("6")
	p.Knock = true
	add("7")
	p.Restricted, p.Redaction = true, redactionV8
	add("8")
	p.Redaction = redactionV9
	add("9")
	p.PowerLevels, p.KnockRestricted = LevelsStrict, true
	add("10")
	p.Redaction, p.RedactsInContent, p.CreatorInContent = redactionV11, true, false
	add("11")
	p.StateResolution, p.PrivilegedCreators, p.RoomIDIsCreateHash = StateResV21, true, true
	add("12")

	index := make(map[id.RoomVersion]*Properties, len(all))
	for i := range all {
		index[all[i].Version] = &all[i]
	}
	return all, index
}

var (
	redactionV1  = redaction(topLevelV1, map[string][]string{"m.room.aliases": {"aliases"}})
	redactionV6  = redaction(topLevelV1, nil)
	redactionV8  = redaction(topLevelV1, map[string][]string{"m.room.join_rules": {"allow"}})
	redactionV9  = redaction(topLevelV1, map[string][]string{"m.room.join_rules": {"allow"}, "m.room.member": {"join_authorised_via_users_server"}})
	redactionV11 = redaction(topLevelV11, map[string][]string{
		"m.room.join_rules":   {"allow"},
		"m.room.member":       {"join_authorised_via_users_server", "third_party_invite.signed"},
		"m.room.power_levels": {"invite"},
		"m.room.redaction":    {"redacts"},
	}, "m.room.create")

	topLevelV11 = []string{
		"auth_events", "content", "depth", "event_id", "hashes", "origin_server_ts", "prev_events", "room_id", "sender",
		"signatures", "state_key", "type",
	}
	topLevelV1 = slices.Concat(topLevelV11, []string{"membership", "origin", "prev_state"})
)

// redaction is the algorithm of version 6, the smallest one, with more keys.
func redaction(keep []string, more map[string][]string, keepContent ...string) *Redaction {
	content := map[string][]string{
		"m.room.member":             {"membership"},
		"m.room.create":             {"creator"},
		"m.room.join_rules":         {"join_rule"},
		"m.room.power_levels":       {"ban", "events", "events_default", "kick", "redact", "state_default", "users", "users_default"},
		"m.room.history_visibility": {"history_visibility"},
	}
	for eventType, keys := range more {
		content[eventType] = append(content[eventType], keys...)
	}
	return &Redaction{Keep: keep, Content: content, KeepContent: keepContent}
}
