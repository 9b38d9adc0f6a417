package syncapi_test

import (
	"fmt"
	"testing"

	"golang.org/x/sync/errgroup"
)

func TestWhatOneReplicaAcknowledgedTheOtherShows(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.rooms.create(room1, alice)
		w.rooms.member(room1, bob, bob, "join")
		both := w.replicas()
		since := next(both[0].get(bob, ""))
		for i := range 10 {
			here, there := both[i%2], both[1-i%2]
			said := w.rooms.say(room1, alice, fmt.Sprint(i))
			answer := there.get(bob, since)
			if got := ids(in(answer, "join", room1).Get("timeline.events")); len(got) != 1 || got[0] != string(said) {
				t.Fatalf("message %d: %v, want %s", i, got, said)
			}
			here.mustRead(bob, room1, "m.read", said, nil)
			answer = there.get(bob, next(answer))
			if !in(answer, "join", room1).Get("ephemeral.events.0").Exists() {
				t.Fatalf("the receipt for message %d is missing: %s", i, answer)
			}
			poll := there.poll(bob, next(answer))
			vars := map[string]string{"userId": string(bob), "type": "org.example.n"}
			here.must(bob, "put_account_data", vars, kv{"n": i})
			answer = receive(t, poll)
			if n := answer.Get("account_data.events.0.content.n").Int(); n != int64(i) {
				t.Fatalf("account data %d: %s", i, answer)
			}
			since = next(answer)
		}
	})
}

func TestTokensThatWanderBetweenReplicasSeeEverythingOnce(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.rooms.create(room1, alice)
		w.rooms.create(room2, alice)
		w.rooms.member(room1, bob, bob, "join")
		w.rooms.member(room2, bob, bob, "join")
		both := w.replicas()
		const n = 60
		first := next(both[0].get(bob, ""))
		var group errgroup.Group
		for reader := range 4 {
			group.Go(func() error {
				since, seen := first, make(map[string]int)
				for i := 0; len(seen) < 2*n && i < 20*n; i++ {
					answer := both[(i+reader)%2].get(bob, since, "timeout", "5000", "filter", `{"room":{"timeline":{"limit":1000}}}`)
					since = next(answer)
					for _, r := range answer.Get("rooms.join").Map() {
						for _, event := range ids(r.Get("timeline.events")) {
							seen[event]++
						}
					}
				}
				if len(seen) != 2*n {
					return fmt.Errorf("reader %d saw %d messages, want %d", reader, len(seen), 2*n)
				}
				for event, times := range seen {
					if times != 1 {
						return fmt.Errorf("reader %d saw %s %d times", reader, event, times)
					}
				}
				return nil
			})
		}
		for i := range n {
			w.rooms.say(room1, alice, fmt.Sprint(i))
			w.rooms.say(room2, alice, fmt.Sprint(i))
		}
		if err := group.Wait(); err != nil {
			t.Error(err)
		}
	})
}
