package syncapi_test

import (
	"testing"

	"github.com/tidwall/gjson"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
)

// saysKeys looks at the counts of an answer.
func saysKeys(t *testing.T, when string, answer gjson.Result, counts, fallback string) {
	t.Helper()
	got := answer.Get("device_one_time_keys_count").Raw
	if unused := answer.Get("device_unused_fallback_key_types").Raw; got != counts || unused != fallback {
		t.Errorf("%s: counts %s and unused fallback keys %s, want %s and %s", when, got, unused, counts, fallback)
	}
}

func TestEveryAnswerHasTheKeyCountsOfItsDevice(t *testing.T) {
	const device = id.DeviceID("DEValice")
	const none, five = `{"signed_curve25519":0}`, `{"signed_curve25519":5}`
	each(t, func(t *testing.T, w *world) {
		counts := func(n int, fallback ...string) record {
			return countsOf(alice, device, map[string]int{"signed_curve25519": n}, fallback...)
		}
		first := w.get(alice, "")
		saysKeys(t, "initial, nothing uploaded", first, none, `[]`)
		since := next(first)
		saysKeys(t, "nothing new", w.get(alice, since), none, `[]`)

		both := w.replicas()
		for i, here := range both {
			there := both[1-i]
			poll := there.poll(alice, since)
			w.users.append(alice, counts(5, "signed_curve25519"))
			uploaded := receive(t, poll)
			saysKeys(t, "a long poll after an upload", uploaded, five, `["signed_curve25519"]`)
			since = next(uploaded)
			saysKeys(t, "the other replica", here.get(alice, since), five, `["signed_curve25519"]`)

			// Keys of other devices, and those of others, wake nobody.
			poll = here.poll(alice, since)
			w.users.append(alice, countsOf(alice, "OTHER", map[string]int{"signed_curve25519": 7}))
			w.users.append(bob, countsOf(bob, device, map[string]int{"signed_curve25519": 8}))
			w.users.append(alice, counts(0))
			claimed := receive(t, poll)
			saysKeys(t, "the last key is claimed", claimed, none, `[]`)
			since = next(claimed)
			saysKeys(t, "an old token", there.get(alice, next(first)), none, `[]`)
			saysKeys(t, "a timeout", there.get(alice, since, "timeout", "50"), none, `[]`)
		}

		w = both[0]
		both[1].stop()
		w.users.append(alice, countsOf(alice, device, map[string]int{"other": 1, "signed_curve25519": 5}))
		w = w.reopened()
		saysKeys(t, "a restart", w.get(alice, since), `{"other":1,"signed_curve25519":5}`, `[]`)
		saysKeys(t, "initial", w.get(alice, ""), `{"other":1,"signed_curve25519":5}`, `[]`)

		w.users.append(alice, counts(5), goneOf(alice, device))
		saysKeys(t, "a device that was made anew", w.get(alice, since), none, `[]`)
		w.users.append(alice, counts(4), goneOf(alice, device), counts(5))
		saysKeys(t, "the same in one commit", w.get(alice, since), five, `[]`)
		w.users.append(alice, goneOf(alice, ""))
		saysKeys(t, "all devices are gone", w.reopened().get(alice, since), none, `[]`)
	})
}

func TestKeyChangesWantsTwoTokens(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.rooms.create(room1, alice)
		w.rooms.member(room1, bob, bob, "join")
		old := next(w.get(alice, ""))
		for query, errcode := range map[string]string{
			"": "M_MISSING_PARAM", "from=" + old: "M_MISSING_PARAM", "to=" + old: "M_MISSING_PARAM",
			"from=x&to=" + old: "M_INVALID_PARAM", "to=x&from=" + old: "M_INVALID_PARAM",
		} {
			if _, err := w.call(alice, "keys_changes", nil, query, nil); !mxerr.Is(err, errcode) {
				t.Errorf("%q: %v, want %s", query, err, errcode)
			}
		}
		w.users.append(bob, listOf(bob))
		w.users.append(carol, listOf(carol))
		w.rooms.member(room1, bob, alice, "leave")
		left := next(w.get(alice, old))
		w.rooms.member(room1, alice, alice, "join")
		now := next(w.get(alice, left))
		const future = "s1_9000000000000000000_0_0"
		for _, one := range []struct{ name, from, to, want string }{
			{"all", old, now, "[@bob:example.org] []"},
			{"up to when alice was out", old, left, "[] [@bob:example.org]"},
			{"since then", left, now, "[@bob:example.org] []"},
			{"up to the future", left, future, "[@bob:example.org] []"},
			{"from the future", future, future, "[] []"},
			{"the wrong way round", now, left, "[] []"},
			{"nothing", now, now, "[] []"},
		} {
			if got := listed(w.keyChanges(alice, one.from, one.to)); got != one.want {
				t.Errorf("%s: %s, want %s", one.name, got, one.want)
			}
		}
	})
}

// What only /sync tells does not end the wait of an older endpoint.
func TestEventsDoNotEndForKeys(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.rooms.create(room1, alice)
		since := next(w.get(alice, ""))
		answers := make(chan gjson.Result, 1)
		go func() {
			answer, err := w.call(alice, "events", nil, "timeout=30000&from="+since, nil)
			if err != nil {
				t.Error(err)
			}
			answers <- answer
		}()
		poll := w.poll(alice, since)
		w.users.append(alice, listOf(alice), countsOf(alice, "DEValice", map[string]int{"signed_curve25519": 1}))
		receive(t, poll)
		said := w.rooms.say(room1, alice, "hello")
		if got := ids(receive(t, answers).Get("chunk")); len(got) != 1 || got[0] != string(said) {
			t.Errorf("events: %v, want %s", got, said)
		}
	})
}
