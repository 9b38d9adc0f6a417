package blackbox

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	clientapi "github.com/matrix-org/dendrite/clientapi/routing"
	"github.com/matrix-org/dendrite/common/httputil"
	syncapi "github.com/matrix-org/dendrite/syncapi/routing"
	"github.com/matrix-org/dendrite/test/deploy"
)

// routes are all endpoints, with paths of v3 and one word of each choice.
func routes(t *testing.T) []httputil.Route {
	t.Helper()
	list, err := syncapi.New(syncapi.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	all := append(list, clientapi.Routes(clientapi.Deps{})...)
	for i := range all {
		all[i].Path = strings.ReplaceAll(all[i].Path, "{r0|v3}", "v3")
		for strings.Contains(all[i].Path, "|") {
			before, after, _ := strings.Cut(all[i].Path, "|")
			start, end := strings.LastIndex(before, "{"), strings.Index(after, "}")
			all[i].Path = before[:start] + before[start+1:] + after[end+1:]
		}
	}
	slices.SortFunc(all, func(a, b httputil.Route) int { return strings.Compare(a.Path+a.Method, b.Path+b.Method) })
	return all
}

// fill puts values into a path's variables. Each must have one.
func fill(t *testing.T, path string, vars map[string]string) string {
	t.Helper()
	segments := strings.Split(path, "/")
	for i, s := range segments {
		if name, is := strings.CutPrefix(s, "{"); is {
			value, has := vars[strings.ToLower(strings.TrimSuffix(name, "}"))]
			if !has {
				t.Fatalf("%s: the test has no %s: give it one", path, s)
			}
			segments[i] = strings.TrimPrefix(at(value), at(""))
		}
	}
	return strings.Join(segments, "/")
}

// one runs a test's body against the monolith on SQLite that tests share: what it looks for does not depend on how a
// server is deployed.
func one(t *testing.T, body func(t *testing.T, d *deployment)) { t.Helper(); oneOf(t, shared, body) }

func oneOf(t *testing.T, all *deploy.Shared, body func(t *testing.T, d *deployment)) {
	t.Helper()
	runOn(t, all, func(t *testing.T, d *deployment) {
		t.Helper()
		if d.kind != monolithSQLite {
			t.Skip("one deployment proves it")
		}
		body(t, d)
	})
}

// changes tells whether a route is for more than reading.
func changes(r *httputil.Route) bool { return r.Method != http.MethodGet }
