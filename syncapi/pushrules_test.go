package syncapi_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
)

// What was stored before there were bounds stops nobody, and its owner can see and remove it.
func TestStoredPushRulesBeyondTheBounds(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.rooms.create(room1, alice)
		w.rooms.member(room1, bob, bob, "join")
		vars := func(ruleID string) map[string]string { return map[string]string{"kind": "content", "ruleId": ruleID} }
		w.must(bob, "put_push_rule", vars("tea"), kv{"pattern": "tea",
			"actions": []any{"notify", kv{"set_tweak": "highlight"}}})
		w.stop()
		rule := `{"rule_id":"tea","default":false,"enabled":true,"pattern":"tea",` +
			`"actions":["notify",{"set_tweak":"highlight"}]}`
		huge := `{"rule_id":"huge%d","default":false,"enabled":true,"pattern":"` + strings.Repeat("a*", 40_000) +
			`","actions":["notify",{"set_tweak":"highlight"}]}`
		rules := []string{rule}
		for i := range 8 {
			rules = append(rules, fmt.Sprintf(huge, i))
		}
		stored := `{"rules":{"content":[` + strings.Join(rules, ",") + `]}}`
		if err := w.db.Script(t.Context(), `UPDATE syncapi_account_data SET content = '`+stored+`'
			WHERE type = 'm.push_rules'`); err != nil {
			t.Fatal(err)
		}
		w.start()
		list := w.must(bob, "get_push_rules_of_kind", vars(""), nil)
		if n := list.Get("#").Int(); n != 9 || list.Get("0.enabled").Raw != "true" ||
			list.Get("1.enabled").Raw != "false" || len(list.Raw) > 5000 {
			t.Errorf("bob sees %d rules: %s", n, list.Raw)
		}
		w.rooms.say(room1, alice, strings.Repeat("a", 20_000))
		w.rooms.say(room1, alice, "some tea")
		w.wantUnread(bob, room1, 2, 1, "a keyword beside rules that are too large")
		w.must(bob, "delete_push_rule", vars("huge0"), nil)
		if _, err := w.call(bob, "get_push_rule", vars("huge0"), "", nil); !mxerr.Is(err, "M_NOT_FOUND") {
			t.Errorf("a rule that was removed: %v", err)
		}
	})
}

// A rule that is switched on or off costs the same statements and rows however many rules and rooms there are.
func TestAToggleOfAPushRuleWritesAsMuchWhateverElseThereIs(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		type cost struct{ Statements, Rows int64 }
		var costs []cost
		rules := 0
		for _, n := range []int{10, 100} {
			for ; rules < n; rules++ {
				room := id.RoomID(fmt.Sprintf("!%d:example.org", rules))
				w.rooms.create(room, bob)
				vars := map[string]string{"kind": "content", "ruleId": fmt.Sprint("r", rules)}
				w.must(bob, "put_push_rule", vars, kv{"pattern": strings.Repeat("x", 1000), "actions": []string{}})
			}
			w.get(bob, "")
			before := w.db.Count()
			w.must(bob, "put_push_rule_enabled", map[string]string{"kind": "content", "ruleId": "r1"},
				kv{"enabled": n == 100})
			c := w.db.Count().Since(before)
			costs = append(costs, cost{int64(c.Statements), int64(c.Rows)})
		}
		if costs[1].Statements > costs[0].Statements || costs[1].Rows > costs[0].Rows {
			t.Errorf("with 10 rules and rooms a toggle costs %+v, with 100 %+v", costs[0], costs[1])
		}
	})
}
