package auth

import (
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/common/roomversion"
)

// PowerLevels answers what a user's level is, and what level an act needs (Client-Server API, m.room.power_levels). It looks
// up each answer in the event's content: most checks need one user of many.
type PowerLevels struct {
	form     roomversion.PowerLevelForm
	infinite []id.UserID // the room's creators, where they are privileged
	creator  id.UserID   // with level 100 in a room without m.room.power_levels, elsewhere
	content  []byte      // nil without m.room.power_levels
}

// Infinite is the power level of the creators of rooms whose version privileges them. No other user can reach it.
const Infinite int64 = math.MaxInt64

// LevelsFrom reads the levels of a room. Either event may be nil.
func LevelsFrom(create, powerLevels *pdu.Event) *PowerLevels {
	p := &PowerLevels{}
	if powerLevels != nil {
		p.content, p.form = powerLevels.Content(), powerLevels.Properties().PowerLevels
	}
	switch {
	case create == nil:
	case create.Properties().PrivilegedCreators:
		p.infinite = Creators(create)
	default:
		p.creator = creatorOf(create)
	}
	return p
}

// Creators are the room's creators: the sender of the create event, and the additional ones where the room version has them.
func Creators(create *pdu.Event) []id.UserID {
	users := []id.UserID{create.Sender()}
	if create.Properties().PrivilegedCreators {
		pdu.EachElement(pdu.Member(create.Content(), "additional_creators"), func(value []byte) {
			if user, is := pdu.String(value); is {
				users = append(users, id.UserID(user))
			}
		})
	}
	return users
}

// creatorOf is the one creator of a room: the create event's sender, or the creator that its content names in old versions.
func creatorOf(create *pdu.Event) id.UserID {
	if !create.Properties().CreatorInContent {
		return create.Sender()
	}
	creator, _ := pdu.String(pdu.Member(create.Content(), "creator"))
	return id.UserID(creator)
}

// Named lists the users who have a level of their own.
func (p *PowerLevels) Named() []id.UserID {
	users := slices.Clone(p.infinite)
	pdu.EachMember(pdu.Member(p.content, "users"), func(name string, _ []byte) { users = append(users, id.UserID(name)) })
	if p.content == nil && p.creator != "" {
		users = append(users, p.creator)
	}
	return users
}

// User is the level of a user.
func (p *PowerLevels) User(user id.UserID) int64 {
	if slices.Contains(p.infinite, user) {
		return Infinite
	}
	if p.content == nil {
		if user == p.creator && user != "" {
			return 100
		}
		return 0
	}
	if level, is := p.read(pdu.Member(pdu.Member(p.content, "users"), string(user))); is {
		return level
	}
	return p.named("users_default", 0)
}

// Event is the level that sending an event of a type needs.
func (p *PowerLevels) Event(eventType string, isState bool) int64 {
	if level, is := p.read(pdu.Member(pdu.Member(p.content, "events"), eventType)); is {
		return level
	}
	if isState {
		return p.named("state_default", 50)
	}
	return p.named("events_default", 0)
}

// Invite is the level that inviting needs.
func (p *PowerLevels) Invite() int64 { return p.named("invite", 0) }

// Kick is the level that kicking needs.
func (p *PowerLevels) Kick() int64 { return p.named("kick", 50) }

// Ban is the level that banning needs.
func (p *PowerLevels) Ban() int64 { return p.named("ban", 50) }

// Redact is the level that redacting the events of others needs.
func (p *PowerLevels) Redact() int64 { return p.named("redact", 50) }

// Notification is the level that triggering a kind of notification needs, such as "room".
func (p *PowerLevels) Notification(key string) int64 {
	if level, is := p.read(pdu.Member(pdu.Member(p.content, "notifications"), key)); is {
		return level
	}
	return 50
}

func (p *PowerLevels) named(name string, otherwise int64) int64 {
	if level, is := p.read(pdu.Member(p.content, name)); is {
		return level
	}
	return otherwise
}

func (p *PowerLevels) read(value []byte) (int64, bool) { return readLevel(p.form, value) }

// readLevel reads a power level in the forms that a room version takes (§ Deprecated event content schemas). Levels beyond 64
// bits, which only old room versions can have, count as the largest or smallest.
func readLevel(form roomversion.PowerLevelForm, value []byte) (int64, bool) {
	if len(value) == 0 {
		return 0, false
	}
	text := string(value)
	if value[0] == '"' {
		if form == roomversion.LevelsStrict {
			return 0, false
		}
		s, _ := pdu.String(value)
		s = strings.TrimSpace(s)
		if digits := strings.TrimLeft(s, "+-"); len(s)-len(digits) > 1 || digits == "" || strings.Trim(digits, "0123456789") != "" {
			return 0, false
		}
		text = s
	} else if value[0] != '-' && (value[0] < '0' || value[0] > '9') {
		return 0, false
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err == nil {
		return n, true
	}
	if strings.ContainsAny(text, ".eE") && form != roomversion.LevelsLenient {
		return 0, false
	}
	f, err := strconv.ParseFloat(text, 64)
	switch {
	case err != nil:
		return 0, false
	case f >= math.MaxInt64:
		return math.MaxInt64, true
	case f <= math.MinInt64:
		return math.MinInt64, true
	}
	return int64(f), true
}
