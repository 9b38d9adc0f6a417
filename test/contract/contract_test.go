package contract

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tidwall/gjson"

	appservice "github.com/matrix-org/dendrite/appservice/routing"
	clientapi "github.com/matrix-org/dendrite/clientapi/routing"
	"github.com/matrix-org/dendrite/common/config"
	"github.com/matrix-org/dendrite/common/httputil"
	syncapi "github.com/matrix-org/dendrite/syncapi/routing"
	"github.com/matrix-org/dendrite/test/deploy"
)

// TestMain removes the server's binary in the end.
func TestMain(m *testing.M) { deploy.Main(m) }

const (
	msc3814 = "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device"
	msc4133 = "/_matrix/client/unstable/uk.tcpip.msc4133/profile/{userID}"
)

// unspecified are endpoints that the specification does not have, or not in this form.
var unspecified = map[string]string{
	"GET /_synapse/admin/v1/register":                                                    "the tools' way to make accounts",
	"POST /_synapse/admin/v1/register":                                                   "the tools' way to make accounts",
	"POST /_synapse/admin/v1/send_server_notice":                                         "the tools' way to send server notices",
	"PUT /_synapse/admin/v1/send_server_notice/{txnID}":                                  "the tools' way to send server notices",
	"GET /_matrix/static/client/login/":                                                  "the page of the login fallback, which is described in prose",
	"GET /_matrix/client/v3/auth/{type}/fallback/web":                                    "the pages of § Fallback, which are described in prose",
	"POST /_matrix/client/v3/auth/{type}/fallback/web":                                   "what those pages send",
	"GET /_dendrite/admin/v1/reports":                                                    "what users have reported, for administrators",
	"GET /_matrix/client/unstable/org.matrix.msc4140/delayed_events":                     "MSC4140",
	"POST /_matrix/client/unstable/org.matrix.msc4140/delayed_events/{delayID}":          "MSC4140",
	"POST /_matrix/client/unstable/org.matrix.msc4140/delayed_events/{delayID}/{action}": "MSC4140",
	"DELETE /_matrix/client/v3/directory/list/appservice/{networkID}/{roomID}":           "what bridges send to take a room out, besides PUT",
	"POST /_matrix/client/v1/refresh":                                                    "where clients of the proposal look for it",
	"GET /_matrix/client/v3/rooms/{roomID}/state/{type}":                                 "the slash before an empty state key is optional",
	"PUT /_matrix/client/v3/rooms/{roomID}/state/{type}":                                 "the slash before an empty state key is optional",
	"GET /_matrix/client/v3/pushrules/global/{kind}/":                                    "part of the whole, for clients of r0",

	// What clients ask for that know no other, or an older form.
	"GET /_matrix/client/unstable/uk.half-shot.msc2666/user/mutual_rooms":      "MSC2666",
	"POST /_matrix/client/unstable/fi.mau.msc2659/appservice/{serviceID}/ping": "MSC2659",
	"POST /_matrix/client/v3/keys/upload/{deviceID}":                           "of r0",
	"GET " + msc4133:               "MSC4133",
	"GET " + msc4133 + "/{key}":    "MSC4133",
	"PUT " + msc4133 + "/{key}":    "MSC4133",
	"DELETE " + msc4133 + "/{key}": "MSC4133",

	"GET " + msc3814:                         "MSC3814",
	"PUT " + msc3814:                         "MSC3814",
	"DELETE " + msc3814:                      "MSC3814",
	"GET " + msc3814 + "/{deviceId}/events":  "MSC3814",
	"POST " + msc3814 + "/{deviceId}/events": "MSC3814, as it was before",
}

// sameVersion are versions of the API in which an endpoint is the same.
var sameVersion = regexp.MustCompile(`\{r0\|v3[^}]*\}`)

// routes are all endpoints, as method and path. Those of r0 and v3 are one.
func routes(t *testing.T) map[string]httputil.Route {
	t.Helper()
	list, err := syncapi.New(syncapi.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]httputil.Route)
	for _, r := range slices.Concat(list, clientapi.Routes(clientapi.Deps{}), appservice.Routes(appservice.Deps{})) {
		for _, path := range expand(sameVersion.ReplaceAllString(r.Path, "v3")) {
			all[r.Method+" "+path] = r
		}
	}
	return all
}

var choice = regexp.MustCompile(`\{([^{}]*\|[^{}]*)\}`)

func expand(path string) []string {
	at := choice.FindStringSubmatchIndex(path)
	if at == nil {
		return []string{path}
	}
	var all []string
	for _, word := range strings.Split(path[at[2]:at[3]], "|") {
		all = append(all, expand(path[:at[0]]+word+path[at[1]:])...)
	}
	return all
}

func TestRoutesAreThoseOfTheSpecification(t *testing.T) {
	_, operations := specification(t)
	for name, route := range routes(t) {
		o := operations[shape(name)]
		if o == nil {
			if unspecified[name] == "" {
				t.Errorf("%s is not in the specification", name)
			}
			continue
		}
		wants := map[httputil.Auth]string{httputil.AuthNone: tokenNever, httputil.AuthOptional: tokenOptional, httputil.AuthUser: tokenAlways,
			httputil.AuthGuest: tokenAlways}[route.Auth]
		if o.token() != wants && (o.token() != tokenOptional || wants != tokenNever) {
			t.Errorf("%s asks for a token %s, the specification %s", name, wants, o.token())
		}
	}
}

// walk is a client of a server, and what it has learned so far.
type walk struct {
	t          *testing.T
	base       string
	documents  *documents
	operations map[string]*operation
	vars       map[string]string      // by the names of variables in paths; tokens by the names of users
	driven     map[string]*calledWays // by shape
	guest      string                 // the token of a guest
	guests     map[string]bool        // by shape: what guests may use
	limits     map[string]int64       // by shape: bytes of bodies that are more than usual
}

// calledWays counts how an operation was called.
type calledWays struct {
	valid, invalid int
	tried          bool // in the generic invalid ways
}

// step is a request that must succeed. In its path, query and body, {name} is a variable.
type step struct {
	as       string // who sends it; empty: nobody
	endpoint string // method and path; v3 if it begins with no prefix
	with     string // variables of this step: name=value, separated by spaces
	query    string
	body     any
	keep     string // what to learn: name=member, separated by spaces
	refusal  string // status and errcode, where it must fail
}

var variable = regexp.MustCompile(`\{([a-zA-Z0-9]+)\}`)

func (w *walk) fill(text string, vars map[string]string, escape func(string) string) string {
	return variable.ReplaceAllStringFunc(text, func(name string) string {
		name = strings.Trim(name, "{}")
		if value, has := vars[name]; has {
			return escape(value)
		}
		value, has := w.vars[name]
		if !has {
			w.t.Fatalf("%s: nothing is known of %s", text, name)
		}
		return escape(value)
	})
}

func pairs(text string) map[string]string {
	all := make(map[string]string)
	for _, pair := range strings.Fields(text) {
		name, value, _ := strings.Cut(pair, "=")
		all[name] = value
	}
	return all
}

func same(s string) string { return s }

func (w *walk) do(s step) {
	w.t.Helper()
	method, path, _ := strings.Cut(s.endpoint, " ")
	if !strings.HasPrefix(path, "/_matrix") && !strings.HasPrefix(path, "/.well-known") {
		path = "/_matrix/client/v3" + path
	}
	name := method + " " + path
	o := w.operations[shape(name)]
	if o == nil {
		w.t.Fatalf("%s is not in the specification", name)
	}
	with := pairs(s.with)
	for key, value := range with {
		with[key] = w.fill(value, nil, same)
	}
	path = w.fill(path, with, url.PathEscape)
	if s.query != "" {
		path += "?" + w.fill(s.query, with, url.QueryEscape)
	}
	var body []byte
	if s.body != nil {
		body = []byte(w.fill(text(s.body), with, same))
		w.matches(o.name+": the request", o.file, w.documents.request(o), body)
	}
	token := ""
	if s.as != "" {
		token = w.vars[s.as]
	}
	calls := w.driven[shape(name)]
	if calls == nil {
		calls = new(calledWays)
		w.driven[shape(name)] = calls
	}
	// Whoever is suspended is told so before anything else is looked at.
	if !calls.tried && !strings.Contains(s.refusal, "M_USER_") {
		calls.tried = true
		calls.invalid += w.invalid(o, path, token, body)
	}
	if s.refusal == "" {
		calls.valid++
	} else {
		calls.invalid++
	}
	status, answer := w.send(method, path, token, body)
	if s.refusal != "" {
		if want := fmt.Sprintf("%d %s", status, gjson.GetBytes(answer, "errcode")); want != s.refusal {
			w.t.Errorf("%s %s: %d %s, want %s", method, path, status, answer, s.refusal)
		}
		return
	}
	if status != http.StatusOK {
		w.t.Fatalf("%s %s: %d %s", method, path, status, answer)
	}
	file, schema, err := w.documents.response(o, status)
	if err != nil || schema == nil {
		w.t.Fatalf("%s: the schema of %d: %v", o.name, status, err)
	}
	learned := w.matches(o.name, file, schema, answer)
	for name, member := range pairs(s.keep) {
		value, is := dig(learned, strings.Split(member, ".")...).(string)
		if !is {
			w.t.Fatalf("%s: %s has no %s", o.name, answer, member)
		}
		w.vars[name] = value
	}
}

// matches checks JSON and returns it.
func (w *walk) matches(name, file string, schema object, document []byte) object {
	w.t.Helper()
	var value any
	if err := json.Unmarshal(document, &value); err != nil {
		w.t.Fatalf("%s: %v in %s", name, err, document)
	}
	if problems := w.documents.check(file, schema, value, "$"); len(problems) > 0 {
		w.t.Errorf("%s is not as specified: %s\n%s", name, strings.Join(problems, "; "), document)
	}
	o, _ := value.(object)
	return o
}

func (w *walk) send(method, path, token string, body []byte) (int, []byte) {
	w.t.Helper()
	r, err := http.NewRequestWithContext(w.t.Context(), method, w.base+path, bytes.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		w.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	if kind := answer.Header.Get("Content-Type"); kind != "application/json" || answer.Header.Get("Access-Control-Allow-Origin") != "*" {
		w.t.Errorf("%s %s: the headers are %v", method, path, answer.Header)
	}
	return answer.StatusCode, text
}

func TestEveryEndpointAnswersAsItsSchemaSays(t *testing.T) {
	documents, operations := specification(t)
	b := newBridge(t)
	d := deploy.Own(t, deploy.MonolithSQLite, deploy.Options{Registrations: map[string]string{"bridge": text(b.registration)}, Edit: func(c *config.Config) {
		m := &c.Matrix
		m.PublicBaseURL = "https://test.example"
		m.WellKnown = config.WellKnown{Client: "https://test.example", Server: "test.example:443",
			ClientExtra:  config.Members{"io.element.e2ee": object{"default": false, "list": []any{object{"a": 1}}}},
			PolicyServer: "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8",
			Support:      config.Support{Page: "https://test.example/help", Contacts: []config.Contact{{Role: "m.role.admin", Email: "a@test.example"}}}}
		m.Registration.Verification, m.Registration.Tokens, m.Registration.Guests = config.VerificationToken, []string{"welcome"}, true
		c.TURN = config.TURN{URIs: []string{"turn:test.example?transport=udp"}, UserLifetime: 3600e9, SharedSecret: "turning"}
	}})
	path, err := deploy.Binary()
	if err != nil {
		t.Fatal(err)
	}
	makeAdmin := exec.Command(path, "create-account", "--config", d.File, "--username", "admin", "--admin", "--password-stdin")
	makeAdmin.Stdin = strings.NewReader("the password")
	if out, err := makeAdmin.CombinedOutput(); err != nil {
		t.Fatalf("create-account: %v: %s", err, out)
	}
	w := &walk{t: t, base: d.URL(), documents: documents, operations: operations, driven: make(map[string]*calledWays), vars: map[string]string{
		"a": "@alice:test.example", "b": "@bob:test.example", "userId": "@alice:test.example", "alias": "#room:test.example", "other": "#other:test.example",
		"service": bridgeToken}}
	b.homeserver.Store(d.URL())
	status, guest := w.send("POST", "/_matrix/client/v3/register?kind=guest", "", []byte("{}"))
	if status != http.StatusOK {
		t.Fatalf("register a guest: %d %s", status, guest)
	}
	w.guest, w.guests = gjson.GetBytes(guest, "access_token").Str, documents.forGuests(t)
	all := routes(t)
	w.limits = make(map[string]int64)
	for name, route := range all {
		w.limits[shape(name)] = route.MaxBody
	}
	for _, s := range slices.Concat(steps, encryption, ending) {
		w.do(s)
		if t.Failed() && testing.Verbose() {
			fmt.Println("after", s.endpoint)
		}
	}
	for name := range all {
		if unspecified[name] == "" && w.driven[shape(name)] == nil {
			t.Errorf("no step drives %s", name)
		}
	}
	b.mustHaveGotAll()
	compareList(t, operations, w.driven)
}
