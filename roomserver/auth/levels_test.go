package auth

import (
	"math"
	"testing"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/common/roomversion"
)

func TestLevelForms(t *testing.T) {
	const none = math.MinInt64 + 1               // no level
	for text, want := range map[string][3]int64{ // lenient, or strings, strict
		`50`:                     {50, 50, 50},
		`-3`:                     {-3, -3, -3},
		`"100"`:                  {100, 100, none},
		`"000100"`:               {100, 100, none},
		`"+100"`:                 {100, 100, none},
		`" -100 "`:               {-100, -100, none},
		`"+-100"`:                {none, none, none},
		`"+"`:                    {none, none, none},
		`""`:                     {none, none, none},
		`"1_000"`:                {none, none, none},
		`"0x10"`:                 {none, none, none},
		`"1e3"`:                  {none, none, none},
		`"50.5"`:                 {none, none, none},
		`50.57`:                  {50, none, none},
		`-50.57`:                 {-50, none, none},
		`5.114698E4`:             {51146, none, none},
		`1e400`:                  {none, none, none},
		`1e30`:                   {math.MaxInt64, none, none},
		`-1e30`:                  {math.MinInt64, none, none},
		`99999999999999999999`:   {math.MaxInt64, math.MaxInt64, math.MaxInt64},
		`"99999999999999999999"`: {math.MaxInt64, math.MaxInt64, none},
		`null`:                   {none, none, none},
		`true`:                   {none, none, none},
		`{}`:                     {none, none, none},
		`[5]`:                    {none, none, none},
	} {
		for form, want := range want {
			have, is := readLevel(roomversion.PowerLevelForm(form), []byte(text))
			if !is {
				have = none
			}
			if have != want {
				t.Errorf("form %d: %s is %d, want %d", form, text, have, want)
			}
		}
	}
}

func TestLevelsAndTheirDefaults(t *testing.T) {
	w := newWorld(t, "11", nil)
	none := LevelsFrom(w.create, nil)
	empty := LevelsFrom(w.create, w.event(pdu.TypePowerLevels, stateKey(""), creator, object{}))
	full := LevelsFrom(w.create, w.event(pdu.TypePowerLevels, stateKey(""), creator, object{
		"ban": 1, "kick": 2, "redact": 3, "invite": 4, "events_default": 5, "state_default": 6, "users_default": 7,
		"users": object{string(user): 8}, "events": object{"m.x": 9}, "notifications": object{"room": 10},
	}))
	for name, off := range map[string][3]int64{ // by how much: without power levels, with empty ones, with all of them
		"ban":     {none.Ban() - 50, empty.Ban() - 50, full.Ban() - 1},
		"kick":    {none.Kick() - 50, empty.Kick() - 50, full.Kick() - 2},
		"redact":  {none.Redact() - 50, empty.Redact() - 50, full.Redact() - 3},
		"invite":  {none.Invite(), empty.Invite(), full.Invite() - 4},
		"message": {none.Event("m.y", false), empty.Event("m.y", false), full.Event("m.y", false) - 5},
		"state":   {none.Event("m.y", true) - 50, empty.Event("m.y", true) - 50, full.Event("m.y", true) - 6},
		"listed":  {none.Event("m.x", false), empty.Event("m.x", false), full.Event("m.x", true) - 9},
		"other":   {none.User(other), empty.User(other), full.User(other) - 7},
		"user":    {none.User(user), empty.User(user), full.User(user) - 8},
		"creator": {none.User(creator) - 100, empty.User(creator), full.User(creator) - 7},
		"room":    {none.Notification("room") - 50, empty.Notification("room") - 50, full.Notification("room") - 10},
	} {
		if off != [3]int64{} {
			t.Errorf("%s is wrong by %v", name, off)
		}
	}
}

func TestCreatorsOfTheRoom(t *testing.T) {
	for _, v := range roomversion.All() {
		w := newWorld(t, v, object{"additional_creators": []string{string(admin)}, "creator": string(mod)})
		have := Creators(w.create)
		levels := LevelsFrom(w.create, nil)
		want, infinite, hundred := 1, id.UserID(""), creator
		switch {
		case w.props.PrivilegedCreators:
			want, infinite, hundred = 2, admin, ""
		case w.props.CreatorInContent:
			hundred = mod
		}
		if len(have) != want || have[0] != creator {
			t.Errorf("version %s: the creators are %v", v, have)
		}
		if infinite != "" && (levels.User(infinite) != Infinite || levels.User(creator) != Infinite) {
			t.Errorf("version %s: creators have level %d", v, levels.User(infinite))
		}
		if hundred != "" && (levels.User(hundred) != 100 || levels.User(helper) != 0) {
			t.Errorf("version %s: %s has level %d", v, hundred, levels.User(hundred))
		}
	}
}
