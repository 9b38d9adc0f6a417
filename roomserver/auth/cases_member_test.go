package auth

import (
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/common/roomversion"
)

// becomes is a membership event in a room with a join rule.
func becomes(joinRule string, sender, target id.UserID, membership string) func(*world) error {
	return func(w *world) error {
		w.joinRule(joinRule)
		return w.member(sender, target, membership, nil)
	}
}

func joins(joinRule string, user id.UserID) func(*world) error {
	return becomes(joinRule, user, user, "join")
}

// joinsVia is a join that somebody authorised.
func joinsVia(joinRule string, user, authoriser id.UserID) func(*world) error {
	return func(w *world) error {
		w.joinRule(joinRule)
		e := w.event(pdu.TypeMember, stateKey(string(user)), user, object{"membership": "join", "join_authorised_via_users_server": authoriser})
		signer := w.signer
		signer.ServerName = authoriser.Server()
		e, err := pdu.Sign(e, signer)
		if err != nil {
			return err
		}
		return Check(e, w.state)
	}
}

func knock(p *roomversion.Properties) bool           { return p.Knock }
func knockRestricted(p *roomversion.Properties) bool { return p.KnockRestricted }

func joinCases() []ruleCase {
	first := func(user id.UserID, change func(*world, *pdu.Proto)) func(*world) error {
		return func(w *world) error {
			w.state = Map{{pdu.TypeCreate, ""}: w.create}
			p := pdu.Proto{Type: pdu.TypeMember, StateKey: stateKey(string(user)), Sender: user, Content: w.json(object{"membership": "join"})}
			p.PrevEvents = []id.EventID{w.create.ID()}
			if change != nil {
				change(w, &p)
			}
			return Check(w.build(p), w.state)
		}
	}
	return []ruleCase{
		{rule: ruleMemberForm, pass: becomes("invite", user, user, "leave"), fail: func(w *world) error {
			return w.send(pdu.TypeMember, nil, user, object{"membership": "leave"})
		}},
		{rule: ruleMemberForm, name: "no membership", fail: func(w *world) error {
			return w.send(pdu.TypeMember, stateKey(string(user)), user, object{})
		}},
		{rule: ruleMemberAuthoriserSigned, pass: joinsVia("public", stranger, mod), fail: func(w *world) error {
			w.joinRule("public")
			return w.member(stranger, stranger, "join", object{"join_authorised_via_users_server": string(mod)})
		}},
		{rule: ruleMemberAuthoriserSigned, name: "no user id", fail: func(w *world) error {
			return w.member(invited, invited, "join", object{"join_authorised_via_users_server": 1})
		}},
		{rule: ruleMemberAuthoriserSigned, name: "not only of joins", fail: func(w *world) error {
			return w.member(user, user, "leave", object{"join_authorised_via_users_server": string(mod)})
		}},
		{rule: ruleJoinPublic, name: "authoriser without meaning", in: not(restricted), pass: func(w *world) error {
			w.joinRule("public")
			return w.member(stranger, stranger, "join", object{"join_authorised_via_users_server": string(mod)})
		}},
		{rule: ruleJoinCreator, pass: first(creator, nil), fail: first(admin, nil), failsBy: ruleJoinOtherwise},
		{rule: ruleJoinCreator, name: "not after the first event", fail: first(creator, func(w *world, p *pdu.Proto) {
			p.PrevEvents = []id.EventID{w.create.ID(), w.state[Key{pdu.TypeCreate, ""}].ID() + "x"}
			if w.props.HashIDs() {
				p.PrevEvents[1] = "$BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBA"
			}
		}), failsBy: ruleJoinOtherwise},
		{rule: ruleJoinCreator, name: "an additional creator", in: creators, fail: func(w *world) error {
			return first(admin, nil)(newWorld(w.t, w.v, object{"additional_creators": []string{string(admin)}}))
		}, failsBy: ruleJoinOtherwise},
		{rule: ruleJoinCreator, name: "creator is the sender", in: func(p *roomversion.Properties) bool { return !p.CreatorInContent },
			pass: func(w *world) error {
				return first(creator, nil)(newWorld(w.t, w.v, object{"creator": string(admin)}))
			}},
		{rule: ruleJoinCreator, name: "creator is in content", in: func(p *roomversion.Properties) bool { return p.CreatorInContent },
			pass: func(w *world) error {
				return first(admin, nil)(newWorld(w.t, w.v, object{"creator": string(admin)}))
			}},
		{rule: ruleJoinSelf, pass: joins("public", stranger), fail: becomes("public", admin, stranger, "join")},
		{rule: ruleJoinBanned, pass: joins("public", left), fail: joins("public", banned)},
		{rule: ruleJoinBanned, name: "authorised", in: restricted, fail: joinsVia("restricted", banned, mod)},
		{rule: ruleJoinInvite, pass: joins("invite", invited), fail: joins("invite", stranger), failsBy: ruleJoinOtherwise},
		{rule: ruleJoinInvite, name: "joined already", pass: joins("invite", user), fail: joins("invite", left), failsBy: ruleJoinOtherwise},
		{rule: ruleJoinInvite, name: "no join rules", pass: func(w *world) error {
			delete(w.state, Key{pdu.TypeJoinRules, ""})
			return w.member(invited, invited, "join", nil)
		}, fail: func(w *world) error {
			delete(w.state, Key{pdu.TypeJoinRules, ""})
			return w.member(stranger, stranger, "join", nil)
		}, failsBy: ruleJoinOtherwise},
		{rule: ruleJoinInvite, name: "knock", in: knock, pass: joins("knock", invited), fail: joins("knock", knocker), failsBy: ruleJoinOtherwise},
		{rule: ruleJoinInvite, name: "knock is unknown", in: not(knock), fail: joins("knock", invited), failsBy: ruleJoinOtherwise},
		{rule: ruleJoinRestrictedInvited, pass: joins("restricted", invited), fail: joins("restricted", stranger), failsBy: ruleJoinAuthoriser},
		{rule: ruleJoinRestrictedInvited, name: "joined already", pass: joins("restricted", user)},
		{rule: ruleJoinRestrictedInvited, name: "knock_restricted", in: knockRestricted, pass: joins("knock_restricted", invited),
			fail: joins("knock_restricted", left), failsBy: ruleJoinAuthoriser},
		{rule: ruleJoinAuthoriser, pass: joinsVia("restricted", stranger, mod), fail: joinsVia("restricted", stranger, helper)},
		{rule: ruleJoinAuthoriser, name: "not joined", fail: joinsVia("restricted", stranger, banned50)},
		{rule: ruleJoinAuthoriser, name: "creator", in: creators, pass: joinsVia("knock_restricted", stranger, creator)},
		{rule: ruleJoinAuthoriser, name: "knock_restricted", in: knockRestricted, pass: joinsVia("knock_restricted", left, mod),
			fail: joinsVia("knock_restricted", left, user)},
		{rule: ruleJoinOtherwise, name: "restricted is unknown", in: not(restricted), fail: joins("restricted", invited)},
		{rule: ruleJoinOtherwise, name: "knock_restricted is unknown", in: not(knockRestricted), fail: joins("knock_restricted", invited)},
		{rule: ruleJoinPublic, pass: joins("public", stranger), fail: joins("private", stranger), failsBy: ruleJoinOtherwise},
		{rule: ruleJoinOtherwise, pass: joins("public", invited), fail: joins("private", invited)},
	}
}

func inviteCases() []ruleCase {
	invites := func(sender, target id.UserID) func(*world) error { return becomes("invite", sender, target, "invite") }
	takesUp := func(sender id.UserID, signedBy byte, change func(invite, signed object)) func(*world) error {
		return func(w *world) error { return w.takesUp(sender, w.thirdParty(user, signedBy), change) }
	}
	plain := takesUp(user, 1, nil)
	return []ruleCase{
		{rule: ruleThirdPartyBanned, pass: plain, fail: func(w *world) error {
			w.put(pdu.TypeMember, string(stranger), mod, object{"membership": "ban"})
			return plain(w)
		}},
		{rule: ruleThirdPartySigned, pass: plain, fail: takesUp(user, 1, func(invite, _ object) { delete(invite, "signed") })},
		{rule: ruleThirdPartyForm, pass: plain, fail: takesUp(user, 1, func(_, signed object) { delete(signed, "mxid") })},
		{rule: ruleThirdPartyForm, name: "no token", fail: takesUp(user, 1, func(_, signed object) { delete(signed, "token") })},
		{rule: ruleThirdPartyMXID, pass: plain, fail: takesUp(user, 1, func(_, signed object) { signed["mxid"] = string(left) })},
		{rule: ruleThirdPartyIssued, pass: plain, fail: takesUp(user, 1, func(_, signed object) { signed["token"] = "another" })},
		{rule: ruleThirdPartySender, pass: plain, fail: takesUp(mod, 1, nil)},
		{rule: ruleThirdPartySignature, pass: plain, fail: takesUp(user, 9, nil), failsBy: ruleThirdPartyOtherwise},
		{rule: ruleThirdPartySignature, name: "key of the list", pass: takesUp(user, 2, nil), fail: takesUp(user, 1, func(_, signed object) {
			signed["more"] = "unsigned"
		}), failsBy: ruleThirdPartyOtherwise},
		{rule: ruleThirdPartySignature, name: "last key of the list", pass: takesUp(user, 3, nil)},
		{rule: ruleThirdPartyOtherwise, pass: plain, fail: takesUp(user, 1, func(_, signed object) { delete(signed, "signatures") })},
		{rule: ruleThirdPartySignature, name: "unsigned is not signed", pass: takesUp(user, 1, func(_, signed object) { signed["unsigned"] = object{"a": 1} })},
		{rule: ruleThirdPartyOtherwise, name: "more work than real invites are", fail: func(w *world) error {
			content := w.thirdParty(user, 1)
			issued := w.state[Key{pdu.TypeThirdPartyInvite, "token"}].Content()
			key, _ := pdu.String(pdu.Member(issued, "public_key"))
			keys := []any{}
			for range 2 * maxVerifications {
				keys = append(keys, object{"public_key": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"})
			}
			w.put(pdu.TypeThirdPartyInvite, "token", user, object{"public_keys": append(keys, object{"public_key": key})})
			return w.takesUp(user, content, nil)
		}},
		{rule: ruleThirdPartyOtherwise, name: "many signatures", fail: takesUp(user, 1, func(_, signed object) {
			bad := object{}
			for i := range 400 {
				bad["ed25519:"+string(rune('a'+i%26))+string(rune('a'+i/26))] = "AAAA"
			}
			signed["signatures"] = object{"x": bad, "y": 5}
		})},
		{rule: ruleInviteSenderJoined, pass: invites(mod, stranger), fail: invites(left, stranger)},
		{rule: ruleInviteSenderJoined, name: "only invited", fail: invites(invited, stranger)},
		{rule: ruleInviteTarget, pass: invites(mod, left), fail: invites(admin, user)},
		{rule: ruleInviteTarget, name: "banned", fail: invites(admin, banned)},
		{rule: ruleInviteTarget, name: "invited or knocking", pass: func(w *world) error {
			if err := w.member(mod, invited, "invite", nil); err != nil {
				return err
			}
			return w.member(mod, knocker, "invite", nil)
		}},
		{rule: ruleInviteLevel, pass: invites(mod, stranger), fail: invites(helper, stranger), failsBy: ruleInviteOtherwise},
		{rule: ruleInviteLevel, name: "default", pass: func(w *world) error {
			w.put(pdu.TypePowerLevels, "", creator, object{})
			return w.member(user, stranger, "invite", nil)
		}},
		{rule: ruleInviteOtherwise, pass: invites(admin, stranger), fail: invites(user, stranger)},
	}
}

func leaveCases() []ruleCase {
	leaves := func(sender, target id.UserID) func(*world) error { return becomes("invite", sender, target, "leave") }
	bans := func(sender, target id.UserID) func(*world) error { return becomes("invite", sender, target, "ban") }
	knocks := func(joinRule string, user id.UserID) func(*world) error {
		return becomes(joinRule, user, user, "knock")
	}
	return []ruleCase{
		{rule: ruleLeaveSelf, pass: leaves(user, user), fail: leaves(banned, banned)},
		{rule: ruleLeaveSelf, name: "invite", pass: leaves(invited, invited), fail: leaves(left, left)},
		{rule: ruleLeaveSelf, name: "knock", in: knock, pass: leaves(knocker, knocker), fail: leaves(stranger, stranger)},
		{rule: ruleLeaveSelf, name: "knock is unknown", in: not(knock), fail: leaves(knocker, knocker)},
		{rule: ruleLeaveSenderJoined, pass: leaves(mod, user), fail: leaves(banned50, user)},
		{rule: ruleLeaveUnban, pass: leaves(admin, banned), fail: leaves(mod, banned)},
		{rule: ruleLeaveKick, pass: leaves(mod, helper), fail: leaves(helper, user), failsBy: ruleLeaveOtherwise},
		{rule: ruleLeaveKick, name: "an invite", pass: leaves(mod, invited)},
		{rule: ruleLeaveKick, name: "creator", in: creators, pass: leaves(creator, admin), fail: leaves(admin, creator), failsBy: ruleLeaveOtherwise},
		{rule: ruleLeaveOtherwise, pass: leaves(admin, mod), fail: leaves(mod, mod2)},
		{rule: ruleLeaveOtherwise, name: "unban needs kick too", pass: leaves(admin, banned50), fail: func(w *world) error {
			w.put(pdu.TypePowerLevels, "", creator, object{"ban": 0, "kick": 50})
			return w.member(user, banned, "leave", nil)
		}},
		{rule: ruleBanSenderJoined, pass: bans(admin, user), fail: bans(left, user)},
		{rule: ruleBanLevel, pass: bans(admin, stranger), fail: bans(mod, user), failsBy: ruleBanOtherwise},
		{rule: ruleBanLevel, name: "default", pass: func(w *world) error {
			w.put(pdu.TypePowerLevels, "", creator, object{"users": object{string(mod): 50}})
			return w.member(mod, user, "ban", nil)
		}},
		{rule: ruleBanOtherwise, pass: bans(admin, mod), fail: func(w *world) error {
			w.put(pdu.TypePowerLevels, "", creator, object{"users": object{string(mod): 50, string(mod2): 50}})
			return w.member(mod, mod2, "ban", nil)
		}},
		{rule: ruleBanOtherwise, name: "creators", in: creators, fail: func(w *world) error {
			w = newWorld(w.t, w.v, object{"additional_creators": []string{string(admin)}})
			w.put(pdu.TypePowerLevels, "", creator, object{})
			return w.member(creator, admin, "ban", nil)
		}},
		{rule: ruleKnockJoinRule, pass: knocks("knock", stranger), fail: knocks("invite", stranger)},
		{rule: ruleKnockJoinRule, name: "public", fail: knocks("public", stranger)},
		{rule: ruleKnockJoinRule, name: "knock_restricted", in: knockRestricted, pass: knocks("knock_restricted", left), fail: knocks("restricted", left)},
		{rule: ruleKnockJoinRule, name: "knock_restricted is unknown", in: not(knockRestricted), fail: knocks("knock_restricted", left)},
		{rule: ruleKnockSelf, pass: knocks("knock", left), fail: becomes("knock", admin, stranger, "knock")},
		{rule: ruleKnockAllowed, pass: knocks("knock", knocker), fail: knocks("knock", user), failsBy: ruleKnockOtherwise},
		{rule: ruleKnockOtherwise, pass: knocks("knock", left), fail: knocks("knock", banned)},
		{rule: ruleKnockOtherwise, name: "invited", fail: knocks("knock", invited)},
		{rule: ruleMemberUnknown, pass: leaves(user, user), fail: becomes("invite", admin, admin, "dance")},
		{rule: ruleMemberUnknown, name: "knock", in: not(knock), fail: knocks("knock", stranger)},
		{rule: ruleMemberUnknown, name: "no string", fail: func(w *world) error {
			return w.send(pdu.TypeMember, stateKey(string(user)), user, object{"membership": 1})
		}},
	}
}
