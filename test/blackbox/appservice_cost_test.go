package blackbox

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"testing"

	"github.com/matrix-org/dendrite/common/test"
	"github.com/matrix-org/dendrite/test/deploy"
)

// cpu is the processor time that a process has used, in seconds.
func (d *deployment) cpu(tb testing.TB, process string) float64 {
	tb.Helper()
	request, err := http.NewRequest(http.MethodGet, "http://"+d.config.Listen.For(process).Internal+"/metrics", nil)
	if err != nil {
		tb.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+d.config.InternalSecret)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		tb.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		tb.Fatal(err)
	}
	found := regexp.MustCompile(`(?m)^process_cpu_seconds_total ([0-9.e+]+)$`).FindSubmatch(text)
	if found == nil {
		tb.Fatalf("no processor time in %s", text)
	}
	seconds, err := strconv.ParseFloat(string(found[1]), 64)
	if err != nil {
		tb.Fatal(err)
	}
	return seconds
}

// 200 services of 50 namespaces each, and very many of their users in a room, cost a send there less than a fifth of
// its processor time, what is sent to the services included.
func TestManyServicesCostASendLittle(t *testing.T) {
	const services, namespaces = 200, 50
	taker := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // the server may have gone
		_, _ = io.WriteString(w, "{}")
	}))
	t.Cleanup(taker.Close)
	registrations := make(map[string]string)
	for i := range services {
		var users []object
		for j := range namespaces {
			users = append(users, object{"exclusive": false,
				"regex": fmt.Sprintf("@_bridge%d_%d_.*:test.example", i, j)})
		}
		text, err := json.Marshal(object{"id": fmt.Sprint("bridge", i), "url": taker.URL,
			"as_token": fmt.Sprint("as", i), "hs_token": "hs",
			"sender_localpart": fmt.Sprint("_bot", i), "rate_limited": false, "namespaces": object{"users": users,
				"rooms":   []object{},
				"aliases": []object{{"exclusive": false, "regex": fmt.Sprintf("#_bridge%d_.*", i)}}}})
		if err != nil {
			t.Fatal(err)
		}
		registrations[fmt.Sprint(i)] = string(text)
	}
	ghosts, sends := test.Soak(300, 20_000), test.Soak(1500, 5000)
	cost := func(kind deploy.Kind, with map[string]string) float64 {
		d := deployed(deploy.Own(t, kind, deploy.Options{Registrations: with}))
		alice := d.user(t, "alice")
		room, elsewhere := alice.publicRoom(), alice.publicRoom()
		if with != nil {
			for i := range ghosts {
				// A room is bridged by one service; the users of the others are elsewhere.
				bridged, service := room, 0
				if i%2 == 1 {
					bridged, service = elsewhere, 1+i%(services-1)
				}
				name := fmt.Sprintf("_bridge%d_%d_%d", service, i%namespaces, i)
				ghost := d.anybody(t)
				ghost.token, ghost.as = fmt.Sprint("as", service),
					map[string][]string{"user_id": {"@" + name + ":test.example"}}
				bridge := d.anybody(t)
				bridge.token = ghost.token
				bridge.must("POST", at("register"), object{"type": "m.login.application_service", "username": name,
					"inhibit_login": true})
				ghost.join(bridged)
			}
		}
		for range 200 {
			alice.say(room, "warm")
		}
		before := d.cpu(t, "monolith")
		for range sends {
			alice.say(room, "a message of usual length, which says something")
		}
		return (d.cpu(t, "monolith") - before) / float64(sends)
	}
	for _, kind := range []deploy.Kind{monolithSQLite, deploy.MonolithPostgres} {
		t.Run(string(kind), func(t *testing.T) {
			deploy.Chosen(t, kind)
			without, with := cost(kind, nil), cost(kind, registrations)
			t.Logf("a send costs %.0f µs of processor time without services, %.0f µs with %d: %.0f %% more",
				without*1e6, with*1e6, services,
				100*(with/without-1))
			if with > without*1.2 {
				t.Errorf("a send costs %.0f µs without services and %.0f µs with them", without*1e6, with*1e6)
			}
		})
	}
}
