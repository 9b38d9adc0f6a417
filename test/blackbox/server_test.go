package blackbox

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/matrix-org/dendrite/common/config"
)

func TestRegisterAndWhoami(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		if versions := d.anybody(t).must("GET", "/_matrix/client/versions", nil); len(versions.Get("versions").Array()) == 0 {
			t.Errorf("no versions: %s", versions.Raw)
		}
		alice := d.user(t, "alice")
		if want := "@" + alice.localpart + ":test.example"; alice.userID != want {
			t.Errorf("registered as %s, want %s", alice.userID, want)
		}
		who := alice.must("GET", at("account", "whoami"), nil)
		if who.Get("user_id").Str != alice.userID || who.Get("device_id").Str != alice.deviceID {
			t.Errorf("%s on %s is told to be %s", alice.userID, alice.deviceID, who.Raw)
		}
	})
}

func TestEveryListenerAnswersAllPublicPaths(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice := d.user(t, "alice")
		for _, base := range d.urls {
			c := *alice
			c.base = base
			c.must("GET", at("account", "whoami"), nil)                // clientapi
			c.must("GET", at("sync"), nil)                             // syncapi
			c.must("GET", "/_matrix/key/v2/server", nil)               // federationapi
			c.must("GET", "/_matrix/federation/v1/version", nil)       // federationapi
			c.refused(404, "M_UNRECOGNIZED", "GET", "/_matrix/x", nil) // nobody
			for _, path := range []string{"/_matrix/client/v3/thirdparty/protocols", "/_matrix/client/v1/media/config", "/_matrix/federation/v1/x"} {
				if a := c.call("GET", path, nil); a.status == http.StatusBadGateway || a.status == http.StatusServiceUnavailable || !a.body.IsObject() {
					t.Errorf("%s%s: %d %s", base, path, a.status, a.body.Raw)
				}
			}
		}
	})
}

func TestUnknownMethodsAndPreflights(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		for _, base := range d.urls {
			c := d.anybody(t)
			c.base = base
			if a := c.refused(405, "M_UNRECOGNIZED", "PATCH", at("login"), nil); a.header.Get("Access-Control-Allow-Origin") != "*" {
				t.Error("an error has no CORS header")
			}
			a := c.call("OPTIONS", at("sync"), nil)
			if a.status != http.StatusOK || !strings.Contains(a.header.Get("Access-Control-Allow-Headers"), "Authorization") {
				t.Errorf("a preflight gets %d %v", a.status, a.header)
			}
			if values := c.call("GET", at("sync"), nil).header.Values("Access-Control-Allow-Origin"); !slices.Equal(values, []string{"*"}) {
				t.Errorf("CORS headers %v", values)
			}
			c.refused(401, "M_MISSING_TOKEN", "GET", at("account", "whoami"), nil)
			c.refused(401, "M_MISSING_TOKEN", "GET", at("sync"), nil)
			c.token = "nobody's"
			c.refused(401, "M_UNKNOWN_TOKEN", "GET", at("sync"), nil)
		}
	})
}

func TestProcessesServeHealthMetricsAndNothingToStrangers(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		names := config.Components()
		if d.kind != polylith {
			names = []string{"monolith"}
		}
		for _, name := range names {
			get := func(path, token string) *http.Response {
				answer := d.internal(t, name, path, token)
				if err := answer.Body.Close(); err != nil {
					t.Fatal(err)
				}
				return answer
			}
			for path, token := range map[string]string{"/health": "", "/metrics": "",
				"/debug/pprof/goroutine?debug=1": d.config.InternalSecret,
				"/debug/pprof/heap":              d.config.InternalSecret} {
				if a := get(path, token); a.StatusCode != http.StatusOK {
					t.Errorf("%s: %s answers %s", name, path, a.Status)
				}
			}
			for _, profile := range []string{"", "heap", "goroutine?debug=1", "cmdline", "symbol", "profile?seconds=1",
				"trace?seconds=1"} {
				for _, token := range []string{"", "another", d.config.InternalSecret + "x"} {
					if a := get("/debug/pprof/"+profile, token); a.StatusCode != http.StatusForbidden {
						t.Errorf("%s: a stranger gets the profile %s with %s", name, profile, a.Status)
					}
				}
			}
			if a := get("/_matrix/client/versions", ""); a.StatusCode != http.StatusForbidden {
				t.Errorf("%s: the internal listener answers a public request with %s", name, a.Status)
			}
			if a := get("/rpc/"+name+"/Heads", ""); a.StatusCode == http.StatusOK {
				t.Errorf("%s: a stranger may call it", name)
			}
		}
	})
}
