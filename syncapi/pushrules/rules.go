// Package pushrules holds a user's push rules: the server's defaults, what the user changed of them, and what they say of an
// event (Client-Server API, § Push Rules). It knows neither HTTP nor storage; a user's rules are kept as one JSON Document.
package pushrules

import (
	"encoding/json"
	"slices"

	"github.com/matrix-org/dendrite/common/id"
)

// Kind is a kind of rule.
type Kind string

// The kinds, in the order in which they are checked.
const (
	Override  Kind = "override"
	Content   Kind = "content"
	Room      Kind = "room"
	Sender    Kind = "sender"
	Underride Kind = "underride"
)

var kinds = [...]Kind{Override, Content, Room, Sender, Underride}

// Rule is a push rule as clients see it.
type Rule struct {
	RuleID     string            `json:"rule_id"`
	Default    bool              `json:"default"`
	Enabled    bool              `json:"enabled"`
	Actions    []json.RawMessage `json:"actions"`
	Conditions []Condition       `json:"conditions,omitempty"`
	Pattern    string            `json:"pattern,omitempty"`
}

// MarshalJSON writes conditions, even if there are none, where the kind has them: a rule that has no pattern and is not named
// after a room or user.
func (r Rule) MarshalJSON() ([]byte, error) {
	type plain Rule
	if r.Conditions == nil || len(r.Conditions) > 0 {
		return json.Marshal(plain(r))
	}
	return json.Marshal(struct {
		plain
		Conditions []Condition `json:"conditions"`
	}{plain(r), r.Conditions})
}

// Condition is one condition of a rule. Value is JSON.
type Condition struct {
	Kind    string          `json:"kind"`
	Key     string          `json:"key,omitempty"`
	Pattern *string         `json:"pattern,omitempty"`
	Is      string          `json:"is,omitempty"`
	Value   json.RawMessage `json:"value,omitempty"`
}

// Ruleset is all rules of a user, each kind most important first.
type Ruleset map[Kind][]Rule

// MarshalJSON writes every kind, empty ones too.
func (s Ruleset) MarshalJSON() ([]byte, error) {
	all := make(map[Kind][]Rule, len(kinds))
	for _, k := range kinds {
		all[k] = append([]Rule{}, s[k]...)
	}
	return json.Marshal(all)
}

const master = ".m.rule.master"

var (
	notify    = json.RawMessage(`"notify"`)
	highlight = json.RawMessage(`{"set_tweak":"highlight"}`)
	sound     = json.RawMessage(`{"set_tweak":"sound","value":"default"}`)
	ring      = json.RawMessage(`{"set_tweak":"sound","value":"ring"}`)
)

// Defaults are the predefined rules for a user (§ Predefined Rules).
func Defaults(user id.UserID) Ruleset {
	userID, err := json.Marshal(user)
	if err != nil {
		userID = []byte(`""`) // not reached: a string is always written
	}
	rule := func(name string, actions []json.RawMessage, conditions ...Condition) Rule {
		return Rule{RuleID: name, Default: true, Enabled: name != master, Actions: append([]json.RawMessage{}, actions...),
			Conditions: append([]Condition{}, conditions...)}
	}
	match := func(key, pattern string) Condition {
		return Condition{Kind: "event_match", Key: key, Pattern: &pattern}
	}
	is := func(key, value string) Condition {
		return Condition{Kind: "event_property_is", Key: key, Value: json.RawMessage(value)}
	}
	actions := func(a ...json.RawMessage) []json.RawMessage { return a }
	two := Condition{Kind: "room_member_count", Is: "2"}
	return Ruleset{
		Override: {
			rule(master, nil),
			rule(".m.rule.suppress_notices", nil, match("content.msgtype", "m.notice")),
			rule(".m.rule.invite_for_me", actions(notify, sound), match("type", "m.room.member"),
				match("content.membership", "invite"), match("state_key", string(user))),
			rule(".m.rule.member_event", nil, match("type", "m.room.member")),
			rule(".m.rule.is_user_mention", actions(notify, sound, highlight),
				Condition{Kind: "event_property_contains", Key: `content.m\.mentions.user_ids`, Value: userID}),
			rule(".m.rule.is_room_mention", actions(notify, highlight), is(`content.m\.mentions.room`, "true"),
				Condition{Kind: "sender_notification_permission", Key: "room"}),
			rule(".m.rule.tombstone", actions(notify, highlight), match("type", "m.room.tombstone"), match("state_key", "")),
			rule(".m.rule.reaction", nil, match("type", "m.reaction")),
			rule(".m.rule.room.server_acl", nil, match("type", "m.room.server_acl"), match("state_key", "")),
			rule(".m.rule.suppress_edits", nil, is(`content.m\.relates_to.rel_type`, `"m.replace"`)),
		},
		Underride: {
			rule(".m.rule.call", actions(notify, ring), match("type", "m.call.invite")),
			rule(".m.rule.encrypted_room_one_to_one", actions(notify, sound), two, match("type", "m.room.encrypted")),
			rule(".m.rule.room_one_to_one", actions(notify, sound), two, match("type", "m.room.message")),
			rule(".m.rule.message", actions(notify), match("type", "m.room.message")),
			rule(".m.rule.encrypted", actions(notify), match("type", "m.room.encrypted")),
		},
	}
}

// Merge puts the user's rules where they belong: below the master rule, above the other defaults.
func (d *Document) Merge(user id.UserID) Ruleset {
	set := Defaults(user)
	for _, kind := range kinds {
		rules := set[kind]
		for i := range rules {
			change, changed := d.Changes[rules[i].RuleID]
			if changed && change.Enabled != nil {
				rules[i].Enabled = *change.Enabled
			}
			if changed && change.Actions != nil {
				rules[i].Actions = change.Actions
			}
		}
		below := 0
		if kind == Override {
			below = 1
		}
		set[kind] = slices.Insert(rules, below, d.Rules[kind]...)
	}
	return set
}
