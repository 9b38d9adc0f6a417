package input

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/matrix-org/dendrite/common/glob"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/pdu"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/syncapi/notify"
	"github.com/matrix-org/dendrite/syncapi/pushrules"
)

func set(users ...id.UserID) map[id.UserID]struct{} {
	all := make(map[id.UserID]struct{})
	for _, user := range users {
		all[user] = struct{}{}
	}
	return all
}

func TestFollowers(t *testing.T) {
	room := &roomRules{own: []follower{{user: "@a:x", displayName: "A"}, {user: "@b:x"}}, has: set("@a:x", "@b:x"),
		ignoring: set("@c:x", "@d:x")}
	for name, c := range map[string]struct {
		ignoring  map[id.UserID]struct{} // the sender, anywhere
		mentioned []id.UserID
		want      string
	}{
		"nobody else":               {nil, nil, "{@a:x A false} {@b:x  false}"},
		"ignored by one of the own": {set("@b:x", "@z:x"), nil, "{@a:x A false} {@b:x  true}"},
		"ignored by another":        {set("@c:x"), nil, "{@a:x A false} {@b:x  false} {@c:x  true}"},
		"ignored elsewhere only":    {set("@e:x", "@f:x", "@g:x"), nil, "{@a:x A false} {@b:x  false}"},
		"mentioned":                 {nil, []id.UserID{"@a:x", "@e:x"}, "{@a:x A false} {@b:x  false} {@e:x  false}"},
		"mentioned and ignored":     {set("@c:x"), []id.UserID{"@c:x"}, "{@a:x A false} {@b:x  false} {@c:x  true}"},
	} {
		got := strings.Trim(fmt.Sprint(followers(room, c.ignoring, c.mentioned)), "[]")
		if got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
		if room.own[0].ignores || room.own[1].ignores {
			t.Fatalf("%s: what is remembered of the room has changed", name)
		}
	}
}

func message(t *testing.T, body string) *pdu.Event {
	t.Helper()
	e, err := pdu.ParseTrusted("10", "$event",
		[]byte(`{"type":"m.room.message","room_id":"!r:x","sender":"@s:x","origin_server_ts":1,"depth":1,`+
			`"prev_events":[],"auth_events":[],"content":{"body":"`+body+`"}}`))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func rulesOf(t *testing.T, user id.UserID, patterns ...string) *notify.Rules {
	t.Helper()
	document := new(pushrules.Document)
	for i, pattern := range patterns {
		rule := pushrules.Rule{RuleID: fmt.Sprint(i), Pattern: pattern,
			Actions: []json.RawMessage{json.RawMessage(`"notify"`), json.RawMessage(`{"set_tweak":"highlight"}`)}}
		if err := document.Put(pushrules.Content, rule, "", ""); err != nil {
			t.Fatal(err)
		}
	}
	return notify.NewRules(user, document)
}

func TestTheWorkOfAnEventHasABoundHoweverManyHostileUsersThereAreAndHurtsNoOther(t *testing.T) {
	hostile := slices.Repeat([]string{strings.Repeat("?", pushrules.MaxText-1) + "b"}, 100)
	text := strings.Repeat("a", 59_000) + " the end, my friend"
	for _, users := range []int{10, 100, 1000} {
		rules := map[id.UserID]*notify.Rules{
			"@keyword:x": rulesOf(t, "@keyword:x", "friend"), "@pattern:x": rulesOf(t, "@pattern:x", "the*nd"),
			"@missed:x": rulesOf(t, "@missed:x", "foe", "f?e"),
		}
		list := []follower{{user: "@missed:x"}, {user: "@pattern:x"}, {user: "@keyword:x"}}
		shared := rulesOf(t, "@hostile:x", hostile...)
		for i := range users {
			user := id.UserID(fmt.Sprintf("@hostile%d:x", i))
			rules[user] = shared
			list = append(list, follower{user: user})
		}
		cheapestFirst(list, rules)
		all := &glob.Work{Left: notify.EventWork}
		judge := new(notify.Judge)
		results, err := evaluate(judge.Subject(t.Context(), message(t, text), "!r:x", roomserver.Root{}, 2000), list,
			rules, all)
		if err != nil {
			t.Fatal(err)
		}
		if spent := notify.EventWork - all.Left; spent > min(notify.EventWork, (users+3)*notify.UserWork) {
			t.Errorf("%d hostile users: %d steps", users, spent)
		}
		for i, f := range list {
			want := f.user == "@keyword:x" || f.user == "@pattern:x"
			if results[i].Highlight != want || !results[i].Notify {
				t.Errorf("with %d hostile users, %s: %+v, want a highlight: %v", users, f.user, results[i], want)
			}
		}
	}
}
