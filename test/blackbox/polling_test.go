package blackbox

import (
	"encoding/json"
	"net/http"
	"net/http/httptrace"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidwall/gjson"
)

// longest is how long a sync waits in tests that expect to be woken.
const longest = 30 * time.Second

// poll begins a sync that waits for something new, and returns once the server has it. The answer comes through the function.
func (c *client) poll(since string, parameters ...string) func() gjson.Result {
	c.t.Helper()
	base := c.base
	if base == "" {
		base = c.d.url()
	}
	sent := make(chan struct{})
	trace := &httptrace.ClientTrace{WroteRequest: func(httptrace.WroteRequestInfo) { close(sent) }}
	path := syncPath(since, append([]string{"timeout", "30000"}, parameters...)...)
	r, err := http.NewRequestWithContext(httptrace.WithClientTrace(c.t.Context(), trace), "GET", base+path, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+c.token)
	type outcome struct {
		body gjson.Result
		err  error
	}
	done := make(chan outcome, 1)
	began := time.Now()
	go func() {
		response, err := c.http.Do(r)
		if err != nil {
			done <- outcome{err: err}
			return
		}
		defer response.Body.Close()
		var raw json.RawMessage
		err = json.NewDecoder(response.Body).Decode(&raw)
		done <- outcome{gjson.ParseBytes(raw), err}
	}()
	select {
	case <-sent:
	case o := <-done:
		done <- o
	}
	// A second sync of the same user on the same listener takes the way that the first has to go before it sleeps.
	once := *c
	once.base = base
	once.sync(since)
	return func() gjson.Result {
		c.t.Helper()
		o := <-done
		if o.err != nil {
			c.t.Fatalf("a long poll: %v", o.err)
		}
		if !o.body.Get("next_batch").Exists() {
			c.t.Fatalf("a long poll: %s", o.body.Raw)
		}
		if took := time.Since(began); took > longest*2/3 {
			c.t.Errorf("a long poll took %v: nothing woke it", took)
		}
		return o.body
	}
}

// now is where a user's stream is now.
func (c *client) now() string { c.t.Helper(); return c.sync("").Get("next_batch").Str }

// filtered makes the parameter of a sync from an object.
func filtered(filter object) []string {
	text, err := json.Marshal(filter)
	if err != nil {
		panic(err) // not reached: the filters of tests are JSON
	}
	return []string{"filter", string(text)}
}

// timelineOf makes a filter of the timelines.
func timelineOf(filter object) []string { return filtered(object{"room": object{"timeline": filter}}) }

// same compares lists, in order.
func same[T comparable](t *testing.T, what string, got, want []T) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// words compares a list of strings without spaces with one written in a line.
func words(t *testing.T, what string, got []string, want string) {
	t.Helper()
	same(t, what, got, strings.Fields(want))
}

// memberKeys lists the state keys of the member events among events, sorted.
func memberKeys(events gjson.Result) []string {
	var all []string
	for _, e := range events.Array() {
		if e.Get("type").Str == "m.room.member" {
			all = append(all, e.Get("state_key").Str)
		}
	}
	slices.Sort(all)
	return all
}

// users lists the ids of users, sorted.
func users(clients ...*client) []string {
	var all []string
	for _, c := range clients {
		all = append(all, c.userID)
	}
	slices.Sort(all)
	return all
}

// stateOf folds events into a state: content by type and state key.
func stateOf(lists ...gjson.Result) map[string]string {
	state := make(map[string]string)
	for _, events := range lists {
		for _, e := range events.Array() {
			if e.Get("state_key").Exists() {
				state[e.Get("type").Str+"|"+e.Get("state_key").Str] = e.Get("event_id").Str
			}
		}
	}
	return state
}
