package auth

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"strings"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/pdu"
)

// change is a membership change under check.
type change struct {
	*checker
	sender, target           id.UserID
	senderIs, targetIs       string // current memberships
	joinRule                 string
	senderLevel, targetLevel int64
	content                  []byte
}

func (c *checker) checkMember() error {
	m := change{checker: c, sender: c.e.Sender(), content: c.e.Content(), joinRule: "invite"}
	stateKey, isState := c.e.StateKey()
	if !isState || pdu.Member(m.content, "membership") == nil {
		return c.deny(ruleMemberForm, "m.room.member has no state key, or no membership in content")
	}
	m.target = id.UserID(stateKey)
	if err := m.checkAuthoriserSigned(); err != nil {
		return err
	}
	if err := m.read(); err != nil {
		return err
	}
	switch membership := c.e.Membership(); {
	case membership == "join":
		return m.checkJoin()
	case membership == "invite":
		return m.checkInvite()
	case membership == "leave":
		return m.checkLeave()
	case membership == "ban":
		return m.checkBan()
	case membership == "knock" && c.props.Knock:
		return m.checkKnock()
	default:
		return c.deny(ruleMemberUnknown, "the membership %q is unknown", membership)
	}
}

func (m *change) read() (err error) {
	if m.senderIs, err = m.checker.membership(m.sender); err != nil {
		return err
	}
	if m.targetIs = m.senderIs; m.target != m.sender {
		if m.targetIs, err = m.checker.membership(m.target); err != nil {
			return err
		}
	}
	joinRules, err := m.state.Get(Key{pdu.TypeJoinRules, ""})
	if err != nil {
		return err
	}
	if joinRules != nil {
		m.joinRule, _ = pdu.String(pdu.Member(joinRules.Content(), "join_rule"))
	}
	m.senderLevel, m.targetLevel = m.levels.User(m.sender), m.levels.User(m.target)
	return nil
}

// checkAuthoriserSigned wants the signature of the authorising user's server to be there; that it is valid is verified before
// the rules are applied, with the other signatures that the event needs.
func (m *change) checkAuthoriserSigned() error {
	raw := pdu.Member(m.content, "join_authorised_via_users_server")
	if raw == nil || !m.props.Restricted {
		return nil
	}
	user, err := id.ParseUserID(string(m.e.AuthorisedVia()))
	if err != nil || len(m.e.Signatures(user.Server())) == 0 {
		return m.deny(ruleMemberAuthoriserSigned, "the event is not signed by the server of join_authorised_via_users_server %s", raw)
	}
	return nil
}

func (m *change) checkJoin() error {
	creator := creatorOf(m.create)
	if prev := m.e.PrevEvents(); len(prev) == 1 && prev[0] == m.create.ID() && m.target == creator {
		return nil
	}
	if m.sender != m.target {
		return m.deny(ruleJoinSelf, "%s cannot make %s join", m.sender, m.target)
	}
	if m.senderIs == "ban" {
		return m.deny(ruleJoinBanned, "%s is banned", m.sender)
	}
	invited := m.targetIs == "invite" || m.targetIs == "join"
	restricted := m.props.Restricted && m.joinRule == "restricted" || m.props.KnockRestricted && m.joinRule == "knock_restricted"
	switch {
	case m.joinRule == "public":
		return nil
	case invited && (m.joinRule == "invite" || m.props.Knock && m.joinRule == "knock" || restricted):
		return nil
	case restricted:
		return m.checkAuthoriser()
	}
	return m.deny(ruleJoinOtherwise, "the join rule is %q, and %s is not invited", m.joinRule, m.sender)
}

// checkAuthoriser wants the user who authorised a restricted join to be joined and able to invite.
func (m *change) checkAuthoriser() error {
	authoriser := m.e.AuthorisedVia()
	if authoriser == "" {
		return m.deny(ruleJoinAuthoriser, "the join rule is %q, and %s is neither invited nor authorised by a member", m.joinRule, m.sender)
	}
	membership, err := m.checker.membership(authoriser)
	if err != nil {
		return err
	}
	if level, invite := m.levels.User(authoriser), m.levels.Invite(); membership != "join" || level < invite {
		return m.deny(ruleJoinAuthoriser, "%s, who authorised the join, has membership %q and power level %d; needed are join and %d",
			authoriser, membership, level, invite)
	}
	return nil
}

func (m *change) checkInvite() error {
	if invite := pdu.Member(m.content, "third_party_invite"); invite != nil {
		return m.checkThirdPartyInvite(invite)
	}
	if m.senderIs != "join" {
		return m.deny(ruleInviteSenderJoined, "%s is not joined to the room", m.sender)
	}
	if m.targetIs == "join" || m.targetIs == "ban" {
		return m.deny(ruleInviteTarget, "%s has membership %q", m.target, m.targetIs)
	}
	if invite := m.levels.Invite(); m.senderLevel < invite {
		return m.deny(ruleInviteOtherwise, "%s has power level %d, but inviting needs %d", m.sender, m.senderLevel, invite)
	}
	return nil
}

func (m *change) checkThirdPartyInvite(invite []byte) error {
	if m.targetIs == "ban" {
		return m.deny(ruleThirdPartyBanned, "%s is banned", m.target)
	}
	signed := pdu.Member(invite, "signed")
	if signed == nil {
		return m.deny(ruleThirdPartySigned, "third_party_invite has no signed")
	}
	mxid, hasMXID := pdu.String(pdu.Member(signed, "mxid"))
	token, hasToken := pdu.String(pdu.Member(signed, "token"))
	if !hasMXID || !hasToken {
		return m.deny(ruleThirdPartyForm, "signed has no mxid or no token")
	}
	if mxid != string(m.target) {
		return m.deny(ruleThirdPartyMXID, "signed is for %s, the invite for %s", mxid, m.target)
	}
	issued, err := m.state.Get(Key{pdu.TypeThirdPartyInvite, token})
	if err != nil {
		return err
	}
	if issued == nil {
		return m.deny(ruleThirdPartyIssued, "the room has no m.room.third_party_invite with this token")
	}
	if issued.Sender() != m.sender {
		return m.deny(ruleThirdPartySender, "the third-party invite was sent by %s, not by %s", issued.Sender(), m.sender)
	}
	if !signedByAny(signed, publicKeys(issued.Content())) {
		return m.deny(ruleThirdPartyOtherwise, "no signature of the third-party invite is of one of its public keys")
	}
	return nil
}

// maxVerifications bounds the work of an invite that lists many keys and many signatures. Real ones have two at most.
const maxVerifications = 256

func publicKeys(content []byte) []ed25519.PublicKey {
	var keys []ed25519.PublicKey
	add := func(holder []byte) {
		if s, is := pdu.String(pdu.Member(holder, "public_key")); is {
			if key, err := decodeBase64(s); err == nil && len(key) == ed25519.PublicKeySize {
				keys = append(keys, key)
			}
		}
	}
	add(content)
	pdu.EachElement(pdu.Member(content, "public_keys"), add)
	return keys
}

// signedByAny tells whether an object has a signature, of whichever name, of one of the keys.
func signedByAny(signed []byte, keys []ed25519.PublicKey) bool {
	message := pdu.Without(signed, "signatures", "unsigned")
	left, valid := maxVerifications, false
	pdu.EachMember(pdu.Member(signed, "signatures"), func(_ string, ofServer []byte) {
		pdu.EachMember(ofServer, func(keyID string, value []byte) {
			s, _ := pdu.String(value)
			signature, err := decodeBase64(s)
			if err != nil || len(signature) != ed25519.SignatureSize || !strings.HasPrefix(keyID, "ed25519:") {
				return
			}
			for _, key := range keys {
				if left--; valid || left < 0 {
					return
				}
				valid = ed25519.Verify(key, message, signature)
			}
		})
	})
	return valid
}

// decodeBase64 takes both alphabets, with and without padding: identity servers have used all of them.
func decodeBase64(s string) ([]byte, error) {
	b := bytes.TrimRight([]byte(s), "=")
	for i := range b {
		switch b[i] {
		case '-':
			b[i] = '+'
		case '_':
			b[i] = '/'
		}
	}
	return base64.RawStdEncoding.DecodeString(string(b))
}

func (m *change) checkLeave() error {
	if m.sender == m.target {
		if m.targetIs == "invite" || m.targetIs == "join" || m.props.Knock && m.targetIs == "knock" {
			return nil
		}
		return m.deny(ruleLeaveSelf, "%s has membership %q, and cannot leave", m.sender, m.targetIs)
	}
	if m.senderIs != "join" {
		return m.deny(ruleLeaveSenderJoined, "%s is not joined to the room", m.sender)
	}
	if ban := m.levels.Ban(); m.targetIs == "ban" && m.senderLevel < ban {
		return m.deny(ruleLeaveUnban, "%s has power level %d, but unbanning needs %d", m.sender, m.senderLevel, ban)
	}
	if kick := m.levels.Kick(); m.senderLevel < kick || m.targetLevel >= m.senderLevel {
		return m.deny(ruleLeaveOtherwise, "%s has power level %d; needed are %d, and more than the %d of %s",
			m.sender, m.senderLevel, kick, m.targetLevel, m.target)
	}
	return nil
}

func (m *change) checkBan() error {
	if m.senderIs != "join" {
		return m.deny(ruleBanSenderJoined, "%s is not joined to the room", m.sender)
	}
	if ban := m.levels.Ban(); m.senderLevel < ban || m.targetLevel >= m.senderLevel {
		return m.deny(ruleBanOtherwise, "%s has power level %d; needed are %d, and more than the %d of %s",
			m.sender, m.senderLevel, ban, m.targetLevel, m.target)
	}
	return nil
}

func (m *change) checkKnock() error {
	if m.joinRule != "knock" && !(m.props.KnockRestricted && m.joinRule == "knock_restricted") {
		return m.deny(ruleKnockJoinRule, "the join rule is %q, which does not let anybody knock", m.joinRule)
	}
	if m.sender != m.target {
		return m.deny(ruleKnockSelf, "%s cannot knock for %s", m.sender, m.target)
	}
	if m.senderIs == "ban" || m.senderIs == "invite" || m.senderIs == "join" {
		return m.deny(ruleKnockOtherwise, "%s has membership %q", m.sender, m.senderIs)
	}
	return nil
}
