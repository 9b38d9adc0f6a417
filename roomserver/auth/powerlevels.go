package auth

import (
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/common/roomversion"
)

// namedLevels are the properties of m.room.power_levels that are levels themselves.
var namedLevels = []string{"users_default", "events_default", "state_default", "ban", "redact", "kick", "invite"}

// checkPowerLevels checks new power levels. level is the sender's in the current state.
func (c *checker) checkPowerLevels(level int64) error {
	content := c.e.Content()
	if err := c.checkLevelForms(content); err != nil {
		return err
	}
	if c.levels.content == nil {
		return nil
	}
	current := c.levels
	next := &PowerLevels{form: c.props.PowerLevels, content: content}
	for _, name := range namedLevels {
		was, had := current.read(pdu.Member(current.content, name))
		is, has := next.read(pdu.Member(content, name))
		if had == has && was == is {
			continue
		}
		if had && was > level {
			return c.deny(rulePowerNamedCurrent, "%s has power level %d and cannot change %s, which is %d", c.e.Sender(), level, name, was)
		}
		if has && is > level {
			return c.deny(rulePowerNamedNew, "%s has power level %d and cannot set %s to %d", c.e.Sender(), level, name, is)
		}
	}
	maps := []string{"events", "notifications"}
	if !c.props.NotificationLevels {
		maps = maps[:1]
	}
	for _, name := range maps {
		for _, ch := range levelChanges(current, next, name) {
			if ch.had && ch.was > level {
				return c.deny(rulePowerEventsCurrent, "%s has power level %d and cannot change %s of %s, which is %d", c.e.Sender(), level, name, ch.key, ch.was)
			}
			if ch.has && ch.is > level {
				return c.deny(rulePowerEventsNew, "%s has power level %d and cannot set %s of %s to %d", c.e.Sender(), level, name, ch.key, ch.is)
			}
		}
	}
	for _, ch := range levelChanges(current, next, "users") {
		if ch.had && ch.was >= level && ch.key != string(c.e.Sender()) {
			return c.deny(rulePowerUsersCurrent, "%s has power level %d and cannot change that of %s, which is %d", c.e.Sender(), level, ch.key, ch.was)
		}
		if ch.has && ch.is > level {
			return c.deny(rulePowerUsersNew, "%s has power level %d and cannot raise %s to %d", c.e.Sender(), level, ch.key, ch.is)
		}
	}
	return nil
}

// checkLevelForms checks that levels are levels. Room versions before 10 have a rule about users only; that the other
// properties of theirs must be readable too follows from the rules that compare them.
func (c *checker) checkLevelForms(content []byte) error {
	form := c.props.PowerLevels
	strict := form == roomversion.LevelsStrict
	pick := func(r rule) rule {
		if strict {
			return r
		}
		return rulePowerUsersForm
	}
	for _, name := range namedLevels {
		if raw := pdu.Member(content, name); raw != nil {
			if _, is := readLevel(form, raw); !is {
				return c.deny(pick(rulePowerNamedForm), "%s is %s, which is not an integer", name, raw)
			}
		}
	}
	for _, name := range []string{"events", "notifications"} {
		if name == "notifications" && !c.props.NotificationLevels {
			continue
		}
		if bad := badLevel(form, pdu.Member(content, name)); bad != "" {
			return c.deny(pick(rulePowerMapsForm), "%s %s", name, bad)
		}
	}
	users := pdu.Member(content, "users")
	if bad := badLevel(form, users); bad != "" {
		return c.deny(rulePowerUsersForm, "users %s", bad)
	}
	creators := c.levels.infinite
	var err error
	pdu.EachMember(users, func(user string, _ []byte) {
		if _, parseErr := id.ParseUserID(user); parseErr != nil && err == nil {
			err = c.deny(rulePowerUsersForm, "users: %v", parseErr)
		}
	})
	for _, creator := range creators {
		if err == nil && pdu.Member(users, string(creator)) != nil {
			err = c.deny(rulePowerCreators, "users has %s, who created the room", creator)
		}
	}
	return err
}

// badLevel says what is wrong with an object of levels; nothing if it is absent.
func badLevel(form roomversion.PowerLevelForm, object []byte) (bad string) {
	if object != nil && object[0] != '{' {
		return "is not an object"
	}
	pdu.EachMember(object, func(key string, value []byte) {
		if _, is := readLevel(form, value); !is && bad == "" {
			bad = "has for " + key + " a value that is not an integer"
		}
	})
	return bad
}

type levelChange struct {
	key      string
	had, has bool
	was, is  int64
}

// levelChanges compares an object of levels, in time that is linear in its size.
func levelChanges(current, next *PowerLevels, name string) []levelChange {
	read := func(p *PowerLevels) map[string]int64 {
		levels := map[string]int64{}
		pdu.EachMember(pdu.Member(p.content, name), func(key string, value []byte) {
			if level, is := p.read(value); is {
				levels[key] = level
			}
		})
		return levels
	}
	was, is := read(current), read(next)
	var changes []levelChange
	for key, level := range was {
		if now, has := is[key]; !has || now != level {
			changes = append(changes, levelChange{key, true, has, level, now})
		}
	}
	for key, level := range is {
		if _, had := was[key]; !had {
			changes = append(changes, levelChange{key, false, true, 0, level})
		}
	}
	return changes
}
