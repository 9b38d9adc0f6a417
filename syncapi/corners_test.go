package syncapi_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/tidwall/gjson"

	"github.com/matrix-org/dendrite/common/id"
)

func TestABanAfterAKickShowsNothingOfTheTimeBetween(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.rooms.create(room1, alice)
		w.rooms.member(room1, bob, bob, "join")
		since := next(w.get(bob, ""))
		said := w.rooms.say(room1, alice, "seen")
		kick := w.rooms.member(room1, alice, bob, "leave")
		w.rooms.state(room1, alice, "m.room.topic", "", kv{"topic": "secret"})
		w.rooms.say(room1, alice, "secret")
		ban := w.rooms.member(room1, alice, bob, "ban")
		w.rooms.state(room1, alice, "m.room.name", "", kv{"name": "secret"})
		for _, query := range [][]string{{since}, {since, "use_state_after", "true"}, {"", "filter", `{"room":{"include_leave":true}}`}} {
			answer := w.get(bob, query[0], query[1:]...)
			if strings.Contains(answer.Raw, "secret") {
				t.Errorf("%q shows bob what happened without him: %s", query, answer)
			}
			r := in(answer, "leave", room1)
			got := ids(r.Get("timeline.events"))
			if want := []string{string(said), string(kick), string(ban)}; len(got) < 3 || !slices.Equal(got[len(got)-3:], want) {
				t.Errorf("%q: the timeline ends with %v, want %v", query, got, want)
			}
			if len(query) == 3 && query[0] != "" && !slices.Equal(ids(r.Get("state_after.events")), []string{string(ban)}) {
				t.Errorf("the state after is %s, want the ban alone", r.Get("state_after"))
			}
		}
	})
}

// inOneBatch restarts syncapi after the body, so that everything that the body sends is read at once.
func (w *world) inOneBatch(body func()) {
	w.t.Helper()
	w.stop()
	body()
	w.start()
}

func TestWhatComesAtOnceCountsAsWhatComesInTurn(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.rooms.create(room1, alice)
		w.rooms.member(room1, bob, bob, "join")
		w.must(carol, "put_push_rule", map[string]string{"kind": "content", "ruleId": "cake"}, kv{"pattern": "cake", "actions": []any{"notify", kv{"set_tweak": "highlight"}}})
		w.get(bob, "")
		w.inOneBatch(func() {
			w.rooms.say(room1, alice, "kept")
			gone := w.rooms.put(room1, alice, "m.room.message", nil, mention(bob))
			w.rooms.put(room1, alice, "m.room.redaction", nil, kv{}, redacts(gone))
			w.rooms.member(room1, carol, carol, "join")
			w.rooms.say(room1, alice, "there is cake")
		})
		w.wantUnread(bob, room1, 2, 0, "one of three was redacted at once")
		w.wantUnread(carol, room1, 1, 1, "a keyword right after joining")
		w.rooms.say(room1, alice, "more cake")
		w.wantUnread(carol, room1, 2, 2, "another keyword")
	})
}

func TestAChangeOfProfileReadsNothing(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.rooms.create(room1, alice)
		w.rooms.member(room1, bob, bob, "join")
		w.rooms.say(room1, alice, "unread")
		w.rooms.member(room1, bob, bob, "join")
		w.wantUnread(bob, room1, 1, 0, "after a change of profile")
	})
}

func TestWhoWantsNoReceiptsIsToldThatAllIsRead(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.rooms.create(room1, alice)
		w.rooms.member(room1, bob, bob, "join")
		said := w.rooms.say(room1, alice, "unread")
		const filter = `{"room":{"ephemeral":{"not_types":["m.receipt"]}}}`
		since := next(w.get(bob, "", "filter", filter))
		w.mustRead(bob, room1, "m.read", said, nil)
		counts := in(w.get(bob, since, "filter", filter), "join", room1).Get("unread_notifications.notification_count")
		if !counts.Exists() || counts.Int() != 0 {
			t.Errorf("the count is %q after reading, want 0", counts)
		}
	})
}

func TestRulesThatChangeCountFromThenOn(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.rooms.create(room1, alice)
		for _, user := range []id.UserID{bob, carol} {
			w.rooms.member(room1, user, user, "join")
		}
		keyword := map[string]string{"kind": "content", "ruleId": "cake"}
		rule := kv{"pattern": "cake", "actions": []any{"notify", kv{"set_tweak": "highlight"}}}
		ignores := func(users kv) {
			t.Helper()
			w.must(carol, "put_account_data", map[string]string{"userId": string(carol), "type": "m.ignored_user_list"}, kv{"ignored_users": users})
		}
		w.must(carol, "put_push_rule", keyword, rule)
		w.rooms.say(room1, alice, "cake")
		w.wantUnread(carol, room1, 1, 1, "carol has a keyword")
		w.wantUnread(bob, room1, 1, 0, "bob has none")
		w.must(bob, "put_push_rule", keyword, rule)
		ignores(kv{string(alice): kv{}})
		w.rooms.say(room1, alice, "cake")
		w.wantUnread(bob, room1, 2, 1, "bob has one now")
		w.wantUnread(carol, room1, 1, 1, "carol ignores alice")
		w.must(bob, "delete_push_rule", keyword, nil)
		ignores(kv{})
		w.rooms.say(room1, alice, "cake")
		w.wantUnread(bob, room1, 3, 1, "bob has none again")
		w.wantUnread(carol, room1, 2, 2, "carol ignores nobody")
	})
}

// Where the log is late, somebody may have read what syncapi does not know yet.
func TestAReceiptForAnEventThatIsLate(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.rooms.create(room1, alice)
		w.rooms.member(room1, bob, bob, "join")
		w.mustRead(bob, room1, "m.read", w.rooms.say(room1, alice, "read"), nil)
		before := w.rooms.say(room1, alice, "before it")
		w.wantUnread(bob, room1, 1, 0, "before it")
		release := w.rooms.holdBack()
		late := w.rooms.say(room1, alice, "late")
		w.mustRead(bob, room1, "m.read", late, nil)
		w.wantUnread(bob, room1, 0, 0, "what came before it is read")
		w.mustRead(bob, room1, "m.read", before, nil)
		after := w.rooms.say(room1, alice, "after it")
		release()
		w.wantUnread(bob, room1, 1, 0, "after it came")
		stands := func(when string, want id.EventID) {
			t.Helper()
			receipts := in(w.get(alice, ""), "join", room1).Get(`ephemeral.events.#(type=="m.receipt").content`)
			if got := receipts.Map(); len(got) != 1 || !receipts.Get(gjson.Escape(string(want))).Exists() {
				t.Errorf("%s: the receipt stands at %s, want %s", when, receipts, want)
			}
		}
		stands("after older receipts", late)
		w.mustRead(bob, room1, "m.read", before, nil)
		stands("after an older receipt, when it is known", late)
		w.mustRead(bob, room1, "m.read", after, nil)
		stands("after a newer one", after)
		w.wantUnread(bob, room1, 0, 0, "all is read")
	})
}
