package auth

import (
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/common/roomversion"
)

func powerCases() []ruleCase {
	named := func(sender id.UserID, key string, value any) func(*world) error {
		return changes(sender, func(l, _, _, _ object) { set(l, key, value) })
	}
	events := func(sender id.UserID, key string, value any) func(*world) error {
		return changes(sender, func(_, _, e, _ object) { set(e, key, value) })
	}
	notifications := func(sender id.UserID, key string, value any) func(*world) error {
		return changes(sender, func(_, _, _, n object) { set(n, key, value) })
	}
	users := func(sender, user id.UserID, value any) func(*world) error {
		return changes(sender, func(_, u, _, _ object) { set(u, string(user), value) })
	}
	lenient := func(p *roomversion.Properties) bool { return p.PowerLevels == roomversion.LevelsLenient }
	withNotifications := func(p *roomversion.Properties) bool { return p.NotificationLevels }
	nothing := named(admin, "ban", 60)
	return []ruleCase{
		{rule: rulePowerNamedForm, pass: nothing, fail: named(admin, "kick", "50")},
		{rule: rulePowerNamedForm, name: "object", fail: named(admin, "invite", object{})},
		{rule: rulePowerNamedForm, name: "null", fail: named(admin, "users_default", null{})},
		{rule: rulePowerMapsForm, pass: nothing, fail: events(admin, "m.x", "50")},
		{rule: rulePowerMapsForm, name: "notifications", fail: notifications(admin, "room", true)},
		{rule: rulePowerMapsForm, name: "no object", fail: named(admin, "events", []int{1})},
		{rule: rulePowerUsersForm, pass: nothing, fail: named(admin, "users", []string{"@a:one"})},
		{rule: rulePowerUsersForm, name: "no user id", pass: users(admin, "@new:two", 5), fail: users(admin, "new", 5)},
		{rule: rulePowerUsersForm, name: "no level", fail: users(admin, "@new:two", true)},
		{rule: rulePowerUsersForm, name: "no users", pass: func(w *world) error {
			delete(w.state, Key{pdu.TypePowerLevels, ""})
			return w.send(pdu.TypePowerLevels, stateKey(""), creator, object{})
		}},
		{rule: rulePowerUsersForm, name: "strings are levels", in: not(strictLevels), pass: users(admin, "@new:two", " +0050 "),
			fail: users(admin, "@new:two", "5.5")},
		{rule: rulePowerUsersForm, name: "strings are no levels", in: strictLevels, fail: users(admin, "@new:two", "50")},
		{rule: rulePowerUsersForm, name: "floats are levels", in: lenient, pass: users(admin, "@new:two", 50.57), fail: users(admin, "@new:two", "1e1")},
		{rule: rulePowerUsersForm, name: "unreadable levels elsewhere", in: not(strictLevels), fail: named(admin, "kick", "fifty")},
		{rule: rulePowerUsersForm, name: "unreadable events", in: not(strictLevels), fail: events(admin, "m.x", object{})},
		{rule: rulePowerCreators, pass: nothing, fail: users(admin, creator, 100)},
		{rule: rulePowerCreators, name: "additional", fail: func(w *world) error {
			return users(creator, admin, 100)(newWorld(w.t, w.v, object{"additional_creators": []string{string(admin)}}))
		}},
		{rule: rulePowerFirst, pass: func(w *world) error {
			delete(w.state, Key{pdu.TypePowerLevels, ""})
			return w.send(pdu.TypePowerLevels, stateKey(""), creator, object{"ban": 5000, "users": object{"@new:two": 9000}})
		}, fail: func(w *world) error {
			return w.send(pdu.TypePowerLevels, stateKey(""), admin, object{"ban": 5000})
		}, failsBy: rulePowerNamedNew},
		{rule: rulePowerNamedCurrent, pass: named(mod, "kick", 40), fail: named(mod, "ban", 50)},
		{rule: rulePowerNamedCurrent, name: "removed", pass: named(admin, "ban", nil), fail: named(mod, "ban", nil)},
		{rule: rulePowerNamedNew, pass: named(mod, "kick", 45), fail: named(mod, "kick", 51)},
		{rule: rulePowerNamedNew, name: "added", pass: named(mod, "users_default", 50), fail: named(mod, "events_default", 51)},
		{rule: rulePowerNamedNew, name: "state_default", pass: named(mod, "state_default", 50), fail: named(mod, "state_default", 51)},
		{rule: rulePowerNamedNew, name: "creator", in: creators, pass: named(creator, "ban", 1<<53-1), fail: named(admin, "ban", 1<<53-1)},
		{rule: rulePowerEventsCurrent, pass: events(mod, "m.room.avatar", 40), fail: events(mod, "m.room.topic", 50)},
		{rule: rulePowerEventsCurrent, name: "removed", pass: events(mod, "m.room.avatar", nil), fail: events(mod, "m.room.topic", nil)},
		{rule: rulePowerEventsCurrent, name: "notifications", in: withNotifications, pass: notifications(mod, "here", 10), fail: notifications(mod, "room", nil)},
		{rule: rulePowerEventsCurrent, name: "notifications without a rule", in: not(withNotifications), pass: notifications(mod, "room", 1000)},
		{rule: rulePowerEventsNew, pass: events(mod, "m.room.avatar", 45), fail: events(mod, "m.room.avatar", 60)},
		{rule: rulePowerEventsNew, name: "added", pass: events(mod, "m.new", 50), fail: events(mod, "m.new", 51)},
		{rule: rulePowerEventsNew, name: "notifications", in: withNotifications, pass: notifications(mod, "new", 50), fail: notifications(mod, "here", 51)},
		{rule: rulePowerUsersCurrent, pass: users(mod, helper, 20), fail: users(mod, mod2, 20)},
		{rule: rulePowerUsersCurrent, name: "removed", pass: users(mod, helper, nil), fail: users(mod, admin, nil)},
		{rule: rulePowerUsersCurrent, name: "one's own", pass: users(mod, mod, nil), fail: users(mod, mod2, nil)},
		{rule: rulePowerUsersNew, pass: users(mod, "@new:two", 50), fail: users(mod, "@new:two", 51)},
		{rule: rulePowerUsersNew, name: "changed", pass: users(mod, helper, 50), fail: users(mod, helper, 51)},
		{rule: rulePowerUsersNew, name: "one's own", pass: users(mod, mod, 49), fail: users(mod, mod, 51)},
		{rule: ruleRequiredLevel, name: "power levels", pass: nothing, fail: users(helper, helper, 5)},
		{rule: rulePowerNamedCurrent, name: "the same in another form", in: not(strictLevels), pass: named(mod, "ban", "060")},
	}
}

func changes(sender id.UserID, change func(levels, users, events, notifications object)) func(*world) error {
	return func(w *world) error { return w.power(sender, change) }
}

// null is a JSON null; nil removes.
type null struct{}

func (null) MarshalJSON() ([]byte, error) { return []byte("null"), nil }

func set(o object, key string, value any) {
	if o[key] = value; value == nil {
		delete(o, key)
	}
}
