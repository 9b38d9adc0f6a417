package blackbox

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/tidwall/gjson"
)

// tracker is a client that knows other users' keys as clients do: it fetches those of whom it sees in its rooms at
// first, and later only of whom syncs name.
type tracker struct {
	*client
	chance *rand.Rand
	filter []string // of its syncs but the first
	pages  []page   // what it has stored, the newest last
}

// page is what a client has stored after a sync.
type page struct {
	since string
	clock int               // of the world
	keys  map[string]string // by user whom it tracks
}

// trackerFilters are filters that must make no difference.
func trackerFilters() [][]string {
	return [][]string{nil, filtered(object{"room": object{"timeline": object{"limit": 1}}}),
		filtered(object{"room": object{"timeline": object{"limit": 0}, "state": object{"lazy_load_members": true}}}),
		filtered(object{"room": object{"rooms": []string{}}, "presence": object{"types": []string{}}}),
		filtered(object{"room": object{"state": object{"types": []string{}}, "timeline": object{"types": []string{}}}})}
}

// page is what the client has.
func (v *tracker) page() page {
	if len(v.pages) == 0 {
		return page{}
	}
	return v.pages[len(v.pages)-1]
}

// follow syncs, and fetches the keys of whom it is told of. It returns the answer.
func (v *tracker) follow(ctx context.Context, clock, timeout int) (gjson.Result, error) {
	p := v.page()
	parameters := []string{"timeout", fmt.Sprint(timeout)}
	if p.since != "" {
		parameters = append(parameters, v.filter...)
	}
	answer, _, err := v.insist(ctx, "GET", syncPath(p.since, parameters...), nil)
	if err != nil {
		return answer, err
	}
	next := page{since: answer.Get("next_batch").Str, clock: clock, keys: maps.Clone(p.keys)}
	fetch := userIDs(answer.Get("device_lists.changed"))
	if p.since == "" {
		next.keys, fetch = make(map[string]string), v.sees(answer)
	}
	for _, left := range userIDs(answer.Get("device_lists.left")) {
		delete(next.keys, left)
	}
	fetched, err := v.fetch(ctx, fetch)
	maps.Copy(next.keys, fetched)
	v.pages = append(v.pages[max(0, len(v.pages)-10):], next)
	return answer, err
}

// sees lists who is joined or invited where the client's user is joined, by an initial sync.
func (v *tracker) sees(initial gjson.Result) []string {
	seen := map[string]bool{v.userID: true}
	for _, room := range initial.Get("rooms.join").Map() {
		is := make(map[string]string)
		for _, list := range []string{"state.events", "timeline.events"} {
			for _, e := range room.Get(list).Array() {
				if e.Get("type").Str == "m.room.member" && e.Get("state_key").Exists() {
					is[e.Get("state_key").Str] = e.Get("content.membership").Str
				}
			}
		}
		for userID, membership := range is {
			seen[userID] = seen[userID] || membership == "join" || membership == "invite"
		}
	}
	return slices.DeleteFunc(slices.Sorted(maps.Keys(seen)), func(userID string) bool { return !seen[userID] })
}

// fetch asks for the keys of users.
func (v *tracker) fetch(ctx context.Context, users []string) (map[string]string, error) {
	keys := make(map[string]string)
	if len(users) == 0 {
		return keys, nil
	}
	asks := object{}
	for _, userID := range users {
		asks[userID] = []string{}
	}
	answer, _, err := v.insist(ctx, "POST", at("keys", "query"), object{"device_keys": asks})
	for _, userID := range users {
		var all []string
		for _, kind := range []string{"device_keys", "master_keys", "self_signing_keys", "user_signing_keys"} {
			all = append(all, ordered(answer.Get(kind+"."+escape(userID))))
		}
		keys[userID] = strings.Join(all, "\n")
	}
	return keys, err
}

// ordered is JSON with its keys in order.
func ordered(value gjson.Result) string {
	text, err := json.Marshal(value.Value())
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// compare tells how what the client has differs from the truth: whom it must track, and their keys.
func (v *tracker) compare(ctx context.Context, sees []string) error {
	keys := v.page().keys
	if tracked := slices.Sorted(maps.Keys(keys)); !slices.Equal(tracked, sees) {
		return fmt.Errorf("%s tracks %v, and sees %v", v.userID, tracked, sees)
	}
	truth, err := v.fetch(ctx, sees)
	for _, userID := range sees {
		if err == nil && keys[userID] != truth[userID] {
			err = fmt.Errorf("%s has these keys of %s:\n%s\nand the server has these:\n%s", v.userID, userID, keys[userID],
				truth[userID])
		}
	}
	return err
}

// restart goes back to what the client had stored once, perhaps to nothing.
func (v *tracker) restart() {
	v.pages = v.pages[:v.chance.IntN(len(v.pages)+1)]
}

// userIDs is a list of them, in order.
func userIDs(list gjson.Result) []string {
	all := []string{}
	for _, e := range list.Array() {
		all = append(all, e.Str)
	}
	slices.Sort(all)
	return all
}
