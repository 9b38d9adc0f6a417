package blackbox

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Every public listener ends connections whose body never comes, whether the answer needs it or not.
func TestABodyThatNeverComesEndsItsConnection(t *testing.T) {
	t.Parallel()
	run(t, func(t *testing.T, d *deployment) {
		t.Parallel()
		const length, chunked = "Content-Length: 100\r\n\r\n{", "Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"
		requests := []string{"POST /nope HTTP/1.1\r\n" + length, "POST /nope HTTP/1.1\r\n" + chunked,
			"POST " + at("createRoom") + " HTTP/1.1\r\n" + length, "GET /_matrix/client/versions HTTP/1.1\r\n" + length,
			"OPTIONS " + at("login") + " HTTP/1.1\r\n" + length,
			"POST " + at("logout") + " HTTP/1.1\r\nAuthorization: Bearer bad\r\n" + length,
			"POST " + at("sync") + " HTTP/1.1\r\n" + length, "GET " + at("sync") + " HTTP/1.1\r\n" + length}
		var all sync.WaitGroup
		for _, base := range d.urls {
			to, err := url.Parse(base)
			if err != nil {
				t.Fatal(err)
			}
			for i := range 10 * len(requests) {
				first, rest, _ := strings.Cut(requests[i%len(requests)], "\r\n")
				all.Go(func() {
					c, err := net.Dial("tcp", to.Host)
					if err == nil {
						defer c.Close() //nolint:errcheck // the server has ended it
						_, err = fmt.Fprint(c, first, "\r\nHost: x\r\n", rest)
					}
					if err == nil {
						err = c.SetReadDeadline(time.Now().Add(50 * time.Second)) // for a server that does not end it
					}
					if err != nil {
						t.Error(err)
						return
					}
					if answer, err := io.ReadAll(c); err != nil || !bytes.HasPrefix(answer, []byte("HTTP/1.1 ")) {
						t.Errorf("%s: %.60q, %v", first, answer, err)
					}
				})
			}
		}
		all.Wait()
	})
}

// A page of a room with large events has a bound in bytes; all pages together are the room.
func TestPagesOfLargeEventsAreCut(t *testing.T) {
	const n, most = 40, 1<<20 + 2*64<<10
	run(t, func(t *testing.T, d *deployment) {
		alice := d.user(t, "alice")
		room := alice.publicRoom()
		root := alice.say(room, "root")
		var sent []string
		for i := range n {
			sent = append(sent, alice.send(room, "m.room.message",
				object{"msgtype": "m.text", "body": fmt.Sprint(i) + strings.Repeat("x", 60_000),
					"m.relates_to": object{"rel_type": "m.reference", "event_id": root}}))
		}
		backward := slices.Clone(sent)
		slices.Reverse(backward)
		for path, want := range map[string][]string{
			at("rooms", room, "messages") + "?dir=b&limit=1000&filter=" +
				url.QueryEscape(`{"types":["m.room.message"]}`): append(slices.Clone(backward), root),
			v1("rooms", room, "relations", root) + "?dir=f&limit=1000": sent,
		} {
			var got []string
			token, from := "end", ""
			if strings.Contains(path, "relations") {
				token = "next_batch"
			}
			for {
				page := alice.must("GET", path+from, nil)
				if len(page.Raw) > most || len(page.Get("chunk").Array()) == 0 {
					t.Fatalf("a page has %d bytes, %d events", len(page.Raw), len(page.Get("chunk").Array()))
				}
				got = append(got, ids(page.Get("chunk"))...)
				if !page.Get(token).Exists() {
					break
				}
				from = "&from=" + url.QueryEscape(page.Get(token).Str)
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s: the pages have %d events, not %d, or in another order", path, len(got), len(want))
			}
		}
		around := alice.must("GET", at("rooms", room, "context", sent[n/2])+"?limit=1000&filter="+
			url.QueryEscape(`{"types":["m.room.message"]}`), nil)
		if size := len(around.Get("events_before").Raw) + len(around.Get("events_after").Raw); size > most+64<<10 {
			t.Errorf("a context has %d bytes", size)
		}
		older := alice.must("GET",
			at("rooms", room, "messages")+"?dir=b&limit=1&from="+url.QueryEscape(around.Get("start").Str), nil)
		before := ids(around.Get("events_before"))
		if got, want := ids(older.Get("chunk"))[0], sent[n/2-len(before)-1]; got != want {
			t.Errorf("what comes before a context is %s, not %s", got, want)
		}
	})
}
