package auth

import (
	"strconv"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/roomversion"
)

// rule names a rule of the specification by what it says; its number is found in the tree.
type rule string

const (
	ruleCreate                 rule = "create"
	ruleCreatePrev             rule = "create: has prev_events"
	ruleCreateDomain           rule = "create: domain of room_id"
	ruleCreateRoomID           rule = "create: has room_id"
	ruleCreateVersion          rule = "create: room_version"
	ruleCreateCreator          rule = "create: no creator"
	ruleCreateAdditional       rule = "create: additional_creators"
	ruleRoomCreate             rule = "room_id is the create event"
	ruleAuthEvents             rule = "auth_events"
	ruleAuthDuplicate          rule = "auth_events: duplicates"
	ruleAuthUnneeded           rule = "auth_events: not selected"
	ruleAuthRejected           rule = "auth_events: rejected"
	ruleAuthNoCreate           rule = "auth_events: no create"
	ruleAuthOtherRoom          rule = "auth_events: other room"
	ruleFederate               rule = "m.federate"
	ruleAliases                rule = "aliases"
	ruleAliasesStateKey        rule = "aliases: no state_key"
	ruleAliasesDomain          rule = "aliases: domain"
	ruleMember                 rule = "member"
	ruleMemberForm             rule = "member: no state_key or membership"
	ruleMemberAuthoriser       rule = "member: authoriser"
	ruleMemberAuthoriserSigned rule = "member: authoriser: signature"
	ruleJoin                   rule = "join"
	ruleJoinCreator            rule = "join: creator's first"
	ruleJoinSelf               rule = "join: sender is not target"
	ruleJoinBanned             rule = "join: banned"
	ruleJoinInvite             rule = "join: by invite"
	ruleJoinRestricted         rule = "join: restricted"
	ruleJoinRestrictedInvited  rule = "join: restricted: invited"
	ruleJoinAuthoriser         rule = "join: restricted: authoriser"
	ruleJoinPublic             rule = "join: public"
	ruleJoinOtherwise          rule = "join: otherwise"
	ruleInvite                 rule = "invite"
	ruleThirdParty             rule = "invite: third party"
	ruleThirdPartyBanned       rule = "invite: third party: banned"
	ruleThirdPartySigned       rule = "invite: third party: no signed"
	ruleThirdPartyForm         rule = "invite: third party: no mxid or token"
	ruleThirdPartyMXID         rule = "invite: third party: mxid"
	ruleThirdPartyIssued       rule = "invite: third party: no event"
	ruleThirdPartySender       rule = "invite: third party: sender"
	ruleThirdPartySignature    rule = "invite: third party: signature"
	ruleThirdPartyOtherwise    rule = "invite: third party: otherwise"
	ruleInviteSenderJoined     rule = "invite: sender not joined"
	ruleInviteTarget           rule = "invite: target joined or banned"
	ruleInviteLevel            rule = "invite: level"
	ruleInviteOtherwise        rule = "invite: otherwise"
	ruleLeave                  rule = "leave"
	ruleLeaveSelf              rule = "leave: self"
	ruleLeaveSenderJoined      rule = "leave: sender not joined"
	ruleLeaveUnban             rule = "leave: unban"
	ruleLeaveKick              rule = "leave: kick"
	ruleLeaveOtherwise         rule = "leave: otherwise"
	ruleBan                    rule = "ban"
	ruleBanSenderJoined        rule = "ban: sender not joined"
	ruleBanLevel               rule = "ban: level"
	ruleBanOtherwise           rule = "ban: otherwise"
	ruleKnock                  rule = "knock"
	ruleKnockJoinRule          rule = "knock: join rule"
	ruleKnockSelf              rule = "knock: sender is not target"
	ruleKnockAllowed           rule = "knock: allowed"
	ruleKnockOtherwise         rule = "knock: otherwise"
	ruleMemberUnknown          rule = "member: unknown"
	ruleSenderJoined           rule = "sender not joined"
	ruleThirdPartyInvite       rule = "third_party_invite"
	ruleThirdPartyInviteLevel  rule = "third_party_invite: level"
	ruleRequiredLevel          rule = "required power level"
	ruleOwnStateKey            rule = "state_key of another user"
	rulePower                  rule = "power_levels"
	rulePowerNamedForm         rule = "power_levels: properties not integers"
	rulePowerMapsForm          rule = "power_levels: events or notifications not integers"
	rulePowerUsersForm         rule = "power_levels: users"
	rulePowerCreators          rule = "power_levels: creators"
	rulePowerFirst             rule = "power_levels: the first"
	rulePowerNamed             rule = "power_levels: properties"
	rulePowerNamedCurrent      rule = "power_levels: properties: current value"
	rulePowerNamedNew          rule = "power_levels: properties: new value"
	rulePowerEventsChanged     rule = "power_levels: events changed or removed"
	rulePowerEventsCurrent     rule = "power_levels: events: current value"
	rulePowerEventsAdded       rule = "power_levels: events added or changed"
	rulePowerEventsNew         rule = "power_levels: events: new value"
	rulePowerUsersChanged      rule = "power_levels: users changed or removed"
	rulePowerUsersCurrent      rule = "power_levels: users: current value"
	rulePowerUsersAdded        rule = "power_levels: users added or changed"
	rulePowerUsersNew          rule = "power_levels: users: new value"
	ruleRedaction              rule = "redaction"
	ruleRedactionLevel         rule = "redaction: level"
	ruleRedactionDomain        rule = "redaction: domain"
	ruleRedactionOtherwise     rule = "redaction: otherwise"
)

// node is a rule in the specification's list. A rule that is in some versions only says which.
type node struct {
	rule rule
	in   func(*roomversion.Properties) bool
	sub  []node
}

// tree has the rules of all versions in the order in which the specification lists them. The number of a rule is that of its
// place among the rules that its version has, as in the published lists.
var tree = []node{
	{ruleCreate, nil, []node{
		{ruleCreatePrev, nil, nil},
		{ruleCreateDomain, not(createHash), nil},
		{ruleCreateRoomID, createHash, nil},
		{ruleCreateVersion, nil, nil},
		{ruleCreateCreator, func(p *roomversion.Properties) bool { return p.CreatorInContent }, nil},
		{ruleCreateAdditional, creators, nil},
	}},
	{ruleRoomCreate, createHash, nil},
	{ruleAuthEvents, nil, []node{
		{ruleAuthDuplicate, nil, nil},
		{ruleAuthUnneeded, nil, nil},
		{ruleAuthRejected, nil, nil},
		{ruleAuthNoCreate, not(createHash), nil},
		{ruleAuthOtherRoom, nil, nil},
	}},
	{ruleFederate, nil, nil},
	{ruleAliases, func(p *roomversion.Properties) bool { return p.AliasesAuth }, []node{
		{ruleAliasesStateKey, nil, nil},
		{ruleAliasesDomain, nil, nil},
	}},
	{ruleMember, nil, []node{
		{ruleMemberForm, nil, nil},
		{ruleMemberAuthoriser, restricted, []node{{ruleMemberAuthoriserSigned, nil, nil}}},
		{ruleJoin, nil, []node{
			{ruleJoinCreator, nil, nil},
			{ruleJoinSelf, nil, nil},
			{ruleJoinBanned, nil, nil},
			{ruleJoinInvite, nil, nil},
			{ruleJoinRestricted, restricted, []node{{ruleJoinRestrictedInvited, nil, nil}, {ruleJoinAuthoriser, nil, nil}}},
			{ruleJoinPublic, nil, nil},
			{ruleJoinOtherwise, nil, nil},
		}},
		{ruleInvite, nil, []node{
			{ruleThirdParty, nil, []node{
				{ruleThirdPartyBanned, nil, nil},
				{ruleThirdPartySigned, nil, nil},
				{ruleThirdPartyForm, nil, nil},
				{ruleThirdPartyMXID, nil, nil},
				{ruleThirdPartyIssued, nil, nil},
				{ruleThirdPartySender, nil, nil},
				{ruleThirdPartySignature, nil, nil},
				{ruleThirdPartyOtherwise, nil, nil},
			}},
			{ruleInviteSenderJoined, nil, nil},
			{ruleInviteTarget, nil, nil},
			{ruleInviteLevel, nil, nil},
			{ruleInviteOtherwise, nil, nil},
		}},
		{ruleLeave, nil, []node{
			{ruleLeaveSelf, nil, nil},
			{ruleLeaveSenderJoined, nil, nil},
			{ruleLeaveUnban, nil, nil},
			{ruleLeaveKick, nil, nil},
			{ruleLeaveOtherwise, nil, nil},
		}},
		{ruleBan, nil, []node{
			{ruleBanSenderJoined, nil, nil},
			{ruleBanLevel, nil, nil},
			{ruleBanOtherwise, nil, nil},
		}},
		{ruleKnock, func(p *roomversion.Properties) bool { return p.Knock }, []node{
			{ruleKnockJoinRule, nil, nil},
			{ruleKnockSelf, nil, nil},
			{ruleKnockAllowed, nil, nil},
			{ruleKnockOtherwise, nil, nil},
		}},
		{ruleMemberUnknown, nil, nil},
	}},
	{ruleSenderJoined, nil, nil},
	{ruleThirdPartyInvite, nil, []node{{ruleThirdPartyInviteLevel, nil, nil}}},
	{ruleRequiredLevel, nil, nil},
	{ruleOwnStateKey, nil, nil},
	{rulePower, nil, []node{
		{rulePowerNamedForm, strictLevels, nil},
		{rulePowerMapsForm, strictLevels, nil},
		{rulePowerUsersForm, nil, nil},
		{rulePowerCreators, creators, nil},
		{rulePowerFirst, nil, nil},
		{rulePowerNamed, nil, []node{{rulePowerNamedCurrent, nil, nil}, {rulePowerNamedNew, nil, nil}}},
		{rulePowerEventsChanged, nil, []node{{rulePowerEventsCurrent, nil, nil}}},
		{rulePowerEventsAdded, nil, []node{{rulePowerEventsNew, nil, nil}}},
		{rulePowerUsersChanged, nil, []node{{rulePowerUsersCurrent, nil, nil}}},
		{rulePowerUsersAdded, nil, []node{{rulePowerUsersNew, nil, nil}}},
	}},
	{ruleRedaction, func(p *roomversion.Properties) bool { return p.RedactionAuth }, []node{
		{ruleRedactionLevel, nil, nil},
		{ruleRedactionDomain, nil, nil},
		{ruleRedactionOtherwise, nil, nil},
	}},
}

func createHash(p *roomversion.Properties) bool   { return p.RoomIDIsCreateHash }
func creators(p *roomversion.Properties) bool     { return p.PrivilegedCreators }
func restricted(p *roomversion.Properties) bool   { return p.Restricted }
func strictLevels(p *roomversion.Properties) bool { return p.PowerLevels == roomversion.LevelsStrict }

func not(in func(*roomversion.Properties) bool) func(*roomversion.Properties) bool {
	return func(p *roomversion.Properties) bool { return !in(p) }
}

var numbers = numberAll()

func numberAll() map[id.RoomVersion]map[rule]string {
	all := map[id.RoomVersion]map[rule]string{}
	for _, v := range roomversion.All() {
		props, _ := roomversion.Get(v)
		all[v] = map[rule]string{}
		numberNodes(props, tree, "", all[v])
	}
	return all
}

func numberNodes(props *roomversion.Properties, nodes []node, prefix string, into map[rule]string) {
	n := 0
	for _, nd := range nodes {
		if nd.in != nil && !nd.in(props) {
			continue
		}
		n++
		into[nd.rule] = prefix + strconv.Itoa(n)
		numberNodes(props, nd.sub, into[nd.rule]+".", into)
	}
}

// number is a rule's number in a room version.
func number(v id.RoomVersion, r rule) string { return numbers[v][r] }
