package auth

import (
	"encoding/json"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/common/roomversion"
)

func createCases() []ruleCase {
	plain := func(w *world) error { return w.creates(nil) }
	with := func(more object) func(*world) error { return func(w *world) error { return w.creates(more) } }
	return []ruleCase{
		{rule: ruleCreatePrev, pass: plain, fail: func(w *world) error {
			p := w.createProto(nil)
			p.PrevEvents = []id.EventID{w.create.ID()}
			return Check(w.build(p), Map{})
		}},
		{rule: ruleCreateDomain, pass: plain, fail: func(w *world) error {
			p := w.createProto(nil)
			p.Sender = user
			return Check(w.build(p), Map{})
		}},
		{rule: ruleCreateRoomID, pass: plain, fail: func(w *world) error {
			raw := object{}
			if err := json.Unmarshal(w.create.JSON(), &raw); err != nil {
				return err
			}
			raw["room_id"] = w.room
			e, err := pdu.ParseTrusted(w.v, w.create.ID(), w.json(raw))
			if err != nil {
				return err
			}
			return Check(e, Map{})
		}},
		{rule: ruleCreateVersion, pass: plain, fail: with(object{"room_version": "org.example.none"})},
		{rule: ruleCreateVersion, name: "absent", pass: with(object{"room_version": nil}), fail: with(object{"room_version": 12})},
		{rule: ruleCreateCreator, pass: plain, fail: with(object{"creator": nil})},
		{rule: ruleCreateAdditional, pass: with(object{"additional_creators": []string{"@a:one", "@b:two"}}),
			fail: with(object{"additional_creators": []string{"@a:one", "b"}})},
		{rule: ruleCreateAdditional, name: "no array", pass: with(object{"additional_creators": []string{}}),
			fail: with(object{"additional_creators": "@a:one"})},
		{rule: ruleCreateAdditional, name: "no string", fail: with(object{"additional_creators": []any{"@a:one", 1}})},
		{rule: ruleCreatePrev, name: "additional creators elsewhere", in: not(creators), pass: with(object{"additional_creators": 5})},
	}
}

func authEventCases() []ruleCase {
	asSelected := func(w *world) error { return w.cites(nil) }
	add := func(more func(*world) *pdu.Event) func(*world) error {
		return func(w *world) error {
			return w.cites(func(cited []*pdu.Event) []*pdu.Event { return append(cited, more(w)) })
		}
	}
	replaceLevels := func(w *world, replacement *pdu.Event) error {
		return w.cites(func(cited []*pdu.Event) []*pdu.Event {
			for i, e := range cited {
				if e.Type() == pdu.TypePowerLevels {
					cited[i] = replacement
				}
			}
			return cited
		})
	}
	return []ruleCase{
		{rule: ruleRoomCreate, pass: asSelected, fail: func(w *world) error {
			e, cited := w.message(nil)
			return CheckAuthEvents(e, cited, w.create.ID())
		}},
		{rule: ruleRoomCreate, name: "the id is of another event", fail: func(w *world) error {
			member := w.state[Key{pdu.TypeMember, string(user)}]
			w.room = id.RoomID("!" + member.ID()[1:])
			e, _ := w.message(func([]*pdu.Event) []*pdu.Event { return nil })
			return CheckAuthEvents(e, []*pdu.Event{member})
		}},
		{rule: ruleRoomCreate, name: "another room's state", fail: func(w *world) error {
			w.room = newWorld(w.t, w.v, object{"other": true}).room
			return w.send("m.room.message", nil, user, object{})
		}},
		{rule: ruleAuthDuplicate, pass: asSelected, fail: add(func(w *world) *pdu.Event {
			return w.event(pdu.TypeMember, stateKey(string(user)), user, object{"membership": "join", "displayname": "U"})
		})},
		{rule: ruleAuthUnneeded, pass: asSelected, fail: add(func(w *world) *pdu.Event { return w.state[Key{pdu.TypeMember, string(other)}] })},
		{rule: ruleAuthUnneeded, name: "no state event", fail: add(func(w *world) *pdu.Event {
			return w.event("m.room.message", nil, user, object{})
		})},
		{rule: ruleAuthUnneeded, name: "create", in: createHash, fail: add(func(w *world) *pdu.Event { return w.create })},
		{rule: ruleAuthRejected, pass: func(w *world) error {
			e, cited := w.message(nil)
			return CheckAuthEvents(e, cited, "$some-other-event")
		}, fail: func(w *world) error {
			e, cited := w.message(nil)
			return CheckAuthEvents(e, cited, w.state[Key{pdu.TypePowerLevels, ""}].ID())
		}},
		{rule: ruleAuthNoCreate, pass: asSelected, fail: func(w *world) error {
			return w.cites(func(cited []*pdu.Event) []*pdu.Event { return cited[1:] })
		}},
		{rule: ruleAuthOtherRoom, pass: func(w *world) error {
			return replaceLevels(w, w.event(pdu.TypePowerLevels, stateKey(""), creator, object{"ban": 51}))
		}, fail: func(w *world) error {
			elsewhere := newWorld(w.t, w.v, object{"other": true})
			if !w.props.RoomIDIsCreateHash {
				elsewhere.room = "!elsewhere:one"
			}
			return replaceLevels(w, elsewhere.event(pdu.TypePowerLevels, stateKey(""), creator, w.levels()))
		}},
		{rule: ruleFederate, pass: func(w *world) error {
			return newWorld(w.t, w.v, object{"m.federate": false}).send("m.room.message", nil, helper, object{})
		}, fail: func(w *world) error {
			return newWorld(w.t, w.v, object{"m.federate": false}).send("m.room.message", nil, user, object{})
		}},
		{rule: ruleFederate, name: "joining", pass: func(w *world) error {
			w = newWorld(w.t, w.v, object{"m.federate": true})
			w.joinRule("public")
			return w.member(stranger, stranger, "join", nil)
		}, fail: func(w *world) error {
			w = newWorld(w.t, w.v, object{"m.federate": false})
			w.joinRule("public")
			return w.member(stranger, stranger, "join", nil)
		}},
	}
}

func eventCases() []ruleCase {
	aliases := func(sender id.UserID, key *string) func(*world) error {
		return func(w *world) error { return w.send(pdu.TypeAliases, key, sender, object{}) }
	}
	sends := func(eventType string, key *string, sender id.UserID) func(*world) error {
		return func(w *world) error { return w.send(eventType, key, sender, object{}) }
	}
	redacts := func(sender id.UserID, target id.EventID) func(*world) error {
		return func(w *world) error {
			return Check(w.build(pdu.Proto{Type: pdu.TypeRedaction, Sender: sender, Redacts: target, Content: json.RawMessage(`{}`)}), w.state)
		}
	}
	return []ruleCase{
		{rule: ruleAliasesStateKey, pass: aliases(user, stateKey("two")), fail: aliases(user, nil)},
		{rule: ruleAliasesDomain, pass: aliases(stranger, stateKey("two")), fail: aliases(user, stateKey("one"))},
		{rule: ruleRequiredLevel, name: "aliases", in: func(p *roomversion.Properties) bool { return !p.AliasesAuth },
			pass: aliases(mod, stateKey("two")), fail: aliases(user, stateKey("two"))},
		{rule: ruleSenderJoined, pass: sends("m.room.message", nil, user), fail: sends("m.room.message", nil, stranger)},
		{rule: ruleSenderJoined, name: "invited", fail: sends("m.room.message", nil, invited)},
		{rule: ruleSenderJoined, name: "left", fail: sends("m.room.topic", stateKey(""), left)},
		{rule: ruleSenderJoined, name: "banned", fail: sends("m.room.redaction", nil, banned)},
		{rule: ruleThirdPartyInviteLevel, pass: sends(pdu.TypeThirdPartyInvite, stateKey("t"), mod), fail: sends(pdu.TypeThirdPartyInvite, stateKey("t"), helper)},
		{rule: ruleThirdPartyInviteLevel, name: "without a look at events", pass: func(w *world) error {
			levels := w.levels()
			levels["events"] = object{pdu.TypeThirdPartyInvite: 100}
			w.put(pdu.TypePowerLevels, "", creator, levels)
			return w.send(pdu.TypeThirdPartyInvite, stateKey("@t"), mod, object{})
		}},
		{rule: ruleRequiredLevel, name: "listed type", pass: sends("m.room.topic", stateKey(""), admin), fail: sends("m.room.topic", stateKey(""), mod)},
		{rule: ruleRequiredLevel, name: "listed message type", pass: sends("m.secret", nil, mod), fail: sends("m.secret", nil, helper)},
		{rule: ruleRequiredLevel, name: "state_default", pass: sends("m.some", stateKey("x"), mod), fail: sends("m.some", stateKey("x"), helper)},
		{rule: ruleRequiredLevel, name: "no power levels", pass: func(w *world) error {
			delete(w.state, Key{pdu.TypePowerLevels, ""})
			return w.send("m.some", stateKey(""), creator, object{})
		}, fail: func(w *world) error {
			delete(w.state, Key{pdu.TypePowerLevels, ""})
			return w.send("m.some", stateKey(""), admin, object{})
		}},
		{rule: ruleRequiredLevel, name: "events_default", pass: func(w *world) error {
			w.put(pdu.TypePowerLevels, "", creator, object{"events_default": 10, "users": object{string(mod): 10}})
			return w.send("m.room.message", nil, mod, object{})
		}, fail: func(w *world) error {
			w.put(pdu.TypePowerLevels, "", creator, object{"events_default": 10, "users": object{string(mod): 10}})
			return w.send("m.room.message", nil, user, object{})
		}},
		{rule: ruleRequiredLevel, name: "beyond all but creators", in: creators, pass: func(w *world) error {
			w = newWorld(w.t, w.v, object{"additional_creators": []string{string(other)}})
			w.put(pdu.TypePowerLevels, "", creator, object{"events": object{"m.room.tombstone": 1<<53 - 1}, "users": object{string(admin): 1<<53 - 2}})
			if err := w.send("m.room.tombstone", stateKey(""), creator, object{}); err != nil {
				return err
			}
			return w.send("m.room.tombstone", stateKey(""), other, object{})
		}, fail: func(w *world) error {
			w.put(pdu.TypePowerLevels, "", creator, object{"events": object{"m.room.tombstone": 1<<53 - 1}, "users": object{string(admin): 1<<53 - 2}})
			return w.send("m.room.tombstone", stateKey(""), admin, object{})
		}},
		{rule: ruleOwnStateKey, pass: sends("m.some", stateKey(string(mod)), mod), fail: sends("m.some", stateKey(string(user)), mod)},
		{rule: ruleOwnStateKey, name: "no user id", pass: sends("m.some", stateKey("x@y"), mod), fail: sends("m.some", stateKey("@"), admin)},
		{rule: ruleRedactionLevel, pass: redacts(mod, "$x:two"), fail: redacts(helper, "$x:two"), failsBy: ruleRedactionOtherwise},
		{rule: ruleRedactionDomain, pass: redacts(user, "$x:two"), fail: redacts(user, "$x:one"), failsBy: ruleRedactionOtherwise},
		{rule: ruleRedactionOtherwise, pass: redacts(helper, "$x:one"), fail: redacts(user, "$x:three")},
		{rule: ruleRequiredLevel, name: "redaction without a rule of its own", pass: redacts(user, "$x:two")},
	}
}
