package blackbox

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
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

// 200 services of 50 namespaces each, and very many of their users, cost a send less than a fifth of its processor
// time. In a room that one of them bridges, there is the cost of sending to it besides, which is logged.
func TestManyServicesCostASendLittle(t *testing.T) {
	if test.Soak(0, 1) == 0 {
		t.Skip("it measures: make soak")
	}
	const services, namespaces, turns = 200, 50, 3
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
	const ghosts, sends = 20_000, 3000
	for _, kind := range []deploy.Kind{monolithSQLite, deploy.MonolithPostgres} {
		t.Run(string(kind), func(t *testing.T) {
			d := deployed(deploy.Own(t, kind, deploy.Options{Registrations: registrations}))
			alice := d.user(t, "alice")
			plain, room, elsewhere := alice.publicRoom(), alice.publicRoom(), alice.publicRoom()
			for i := range ghosts {
				// A room is bridged by one service; the users of the others are elsewhere.
				bridged, service := room, 0
				if i%2 == 1 {
					bridged, service = elsewhere, 1+i%(services-1)
				}
				name := fmt.Sprintf("_bridge%d_%d_%d", service, i%namespaces, i)
				bridge, ghost := d.anybody(t), d.anybody(t)
				bridge.token, ghost.token = fmt.Sprint("as", service), fmt.Sprint("as", service)
				ghost.as = map[string][]string{"user_id": {"@" + name + ":test.example"}}
				bridge.must("POST", at("register"), object{"type": "m.login.application_service", "username": name,
					"inhibit_login": true})
				ghost.join(bridged)
			}
			// The same room of the same server, with the services and without them, in turn.
			var with, without [2]float64 // the least of all turns, in µs: in a plain room, and in one that is bridged
			for turn := range 2 * turns {
				if turn > 0 {
					d.registerAll(t, registrations, turn%2 == 0)
				}
				spent := &with
				if turn%2 == 1 {
					spent = &without
				}
				for i, room := range []string{plain, room} {
					for range 50 {
						alice.say(room, "warm")
					}
					before := d.cpu(t, "monolith")
					for range sends {
						alice.say(room, "a message of usual length, which says something")
					}
					each := (d.cpu(t, "monolith") - before) / float64(sends) * 1e6
					if turn < 2 || each < spent[i] {
						spent[i] = each
					}
				}
			}
			for i, what := range []string{"a room that nobody bridges", "a bridged room"} {
				t.Logf("in %s, a send costs %.0f µs of processor time without services, %.0f µs with %d: %.0f %% more",
					what, without[i], with[i], services, 100*(with[i]/without[i]-1))
			}
			if with[0] > without[0]*1.2 {
				t.Errorf("a send costs %.0f µs without services and %.0f µs with them", without[0], with[0])
			}
		})
	}
}

// registerAll has the server read registrations again, of which it has all, or none.
func (d *deployment) registerAll(t *testing.T, registrations map[string]string, all bool) {
	t.Helper()
	const last = "0"
	for name, text := range registrations {
		file, err := filepath.Join(d.config.ApplicationServices.ConfigDir, name+".yaml"), error(nil)
		switch {
		case name == last:
		case all:
			err = os.WriteFile(file, []byte(text), 0o600)
		default:
			err = os.Remove(file)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	text := ""
	if all {
		text = registrations[last]
	}
	if err := d.Register(last, text); err != nil {
		t.Fatal(err)
	}
}
