package blackbox

import (
	"slices"
	"strings"
	"testing"

	"github.com/tidwall/gjson"
)

func ruleIDs(rules gjson.Result) []string {
	var all []string
	for _, r := range rules.Array() {
		all = append(all, r.Get("rule_id").Str)
	}
	return all
}

func TestPredefinedPushRules(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice := d.user(t, "alice")
		all := alice.must("GET", at("pushrules")+"/", nil).Get("global")
		words(t, "override rules", ruleIDs(all.Get("override")), `.m.rule.master .m.rule.suppress_notices .m.rule.invite_for_me .m.rule.member_event
			.m.rule.is_user_mention .m.rule.is_room_mention .m.rule.tombstone .m.rule.reaction .m.rule.room.server_acl .m.rule.suppress_edits`)
		words(t, "underride rules", ruleIDs(all.Get("underride")), ".m.rule.call .m.rule.encrypted_room_one_to_one .m.rule.room_one_to_one .m.rule.message .m.rule.encrypted")
		for _, kind := range []string{"content", "room", "sender"} {
			equal(t, kind+" rules", all.Get(kind).Raw, "[]")
		}
		for _, r := range slices.Concat(all.Get("override").Array(), all.Get("underride").Array()) {
			equal(t, r.Get("rule_id").Str+" is enabled", r.Get("enabled").Bool(), r.Get("rule_id").Str != ".m.rule.master")
			if !r.Get("default").Bool() || !r.Get("actions").IsArray() || !r.Get("conditions").IsArray() {
				t.Errorf("a rule: %s", r.Raw)
			}
		}
		equal(t, "the global rules", alice.must("GET", at("pushrules", "global")+"/", nil).Raw, all.Raw)
		equal(t, "the rules in a sync", find(alice.sync("").Get("account_data.events"), "m.push_rules", "").Get("content.global").Raw, all.Raw)
		mention := alice.must("GET", at("pushrules", "global", "override", ".m.rule.is_user_mention"), nil)
		equal(t, "who is mentioned", mention.Get("conditions.0.value").Str, alice.userID)

		alice.refused(404, "M_NOT_FOUND", "GET", at("pushrules", "global", "override", ".m.rule.nothing"), nil)
		alice.refused(404, "M_NOT_FOUND", "DELETE", at("pushrules", "global", "override", ".m.rule.master"), nil)
		alice.refused(400, "M_INVALID_PARAM", "PUT", at("pushrules", "global", "override", ".m.rule.mine"), object{"actions": []string{}, "conditions": []object{}})
		path := at("pushrules", "global", "underride", ".m.rule.message")
		alice.must("PUT", path+"/actions", object{"actions": []any{"notify", object{"set_tweak": "sound", "value": "x"}}})
		equal(t, "changed actions", alice.must("GET", path+"/actions", nil).Get("actions.1.value").Str, "x")
		alice.must("PUT", path+"/enabled", object{"enabled": false})
		equal(t, "disabled", alice.must("GET", path+"/enabled", nil).Get("enabled").Raw, "false")
		one := alice.must("GET", path, nil)
		equal(t, "the rule", one.Get("rule_id").Str+" "+one.Get("enabled").Raw+" "+one.Get("default").Raw, ".m.rule.message false true")
		if other := d.user(t, "bob").must("GET", path, nil); !other.Get("enabled").Bool() {
			t.Error("the change is another user's too")
		}
	})
}

func TestOwnPushRules(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice := d.user(t, "alice")
		put := func(id, query string) {
			t.Helper()
			alice.must("PUT", at("pushrules", "global", "content", id)+query, object{"pattern": id, "actions": []string{"notify"}})
		}
		order := func(want string) {
			t.Helper()
			list := ruleIDs(alice.must("GET", at("pushrules", "global")+"/", nil).Get("content"))
			words(t, "the order", list, want)
		}
		since := alice.now()
		put("a", "")
		put("b", "")
		order("b a") // the newest is the most important
		put("c", "?after=b")
		order("b c a")
		put("d", "?before=a")
		order("b c d a")
		put("a", "?before=b")
		order("a b c d")
		put("c", "")
		order("a b c d") // an update leaves it where it is
		alice.refused(400, "M_UNKNOWN", "PUT", at("pushrules", "global", "content", "e")+"?before=nothing", object{"pattern": "e", "actions": []string{}})
		alice.must("DELETE", at("pushrules", "global", "content", "b"), nil)
		order("a c d")
		alice.refused(404, "M_NOT_FOUND", "DELETE", at("pushrules", "global", "content", "b"), nil)
		equal(t, "the rules in a sync", strings.Join(ruleIDs(find(alice.sync(since).Get("account_data.events"), "m.push_rules", "").Get("content.global.content")), " "), "a c d")

		path := at("pushrules", "global", "content", "a")
		alice.must("PUT", path+"/enabled", object{"enabled": false})
		put("a", "")
		equal(t, "an updated rule stays disabled", alice.must("GET", path, nil).Get("enabled").Raw, "false")
		alice.must("PUT", path+"/actions", object{"actions": []string{}})
		equal(t, "the actions", alice.must("GET", path+"/actions", nil).Get("actions").Raw, "[]")
		one := alice.must("GET", path, nil)
		equal(t, "the pattern", one.Get("pattern").Str+" "+one.Get("default").Raw, "a false")

		// The user's own override rules are below the master rule and above all others.
		alice.must("PUT", at("pushrules", "global", "override", "mine"), object{"actions": []string{}, "conditions": []object{{"kind": "event_match", "key": "type", "pattern": "x"}}})
		words(t, "override rules", ruleIDs(alice.must("GET", at("pushrules", "global")+"/", nil).Get("override"))[:3], ".m.rule.master mine .m.rule.suppress_notices")

		for _, bad := range []struct {
			path    string
			body    any
			errcode string
		}{
			{at("pushrules", "global", "odd", "x"), object{"actions": []string{}}, "M_INVALID_PARAM"},
			{at("pushrules", "global", "content", "x"), object{"actions": []string{}}, "M_MISSING_PARAM"},
			{at("pushrules", "global", "content", "x"), object{"pattern": "x"}, "M_MISSING_PARAM"},
			{at("pushrules", "global", "content", "x"), object{"pattern": 1, "actions": []string{}}, "M_BAD_JSON"},
			{at("pushrules", "global", "content", "x"), object{"pattern": "x", "actions": []int{1}}, "M_BAD_JSON"},
			{at("pushrules", "global", "content", "a/b"), object{"pattern": "x", "actions": []string{}}, "M_INVALID_PARAM"},
			{at("pushrules", "global", "override", "x"), object{"actions": []string{}, "conditions": []object{{"pattern": "x"}}}, "M_BAD_JSON"},
			{at("pushrules", "global", "content", "a", "enabled"), object{"enabled": "yes"}, "M_BAD_JSON"},
			{at("pushrules", "global", "content", "a", "enabled"), object{}, "M_MISSING_PARAM"},
		} {
			alice.refused(400, bad.errcode, "PUT", bad.path, bad.body)
		}
		alice.refused(404, "M_NOT_FOUND", "PUT", at("pushrules", "global", "content", "nothing", "enabled"), object{"enabled": true})
		alice.refused(404, "M_NOT_FOUND", "PUT", at("pushrules", "global", "content", "nothing", "actions"), object{"actions": []string{}})
		order("a c d")
	})
}
