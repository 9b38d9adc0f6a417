package contract

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidwall/gjson"
)

const (
	bridgeToken   = "bridge-as-token"
	bridgeHSToken = "bridge-hs-token"
)

// bridge is an application service that compares what it is sent with the specification.
type bridge struct {
	t            *testing.T
	registration object
	documents    *documents
	operations   map[string]*operation
	homeserver   atomic.Value // its base URL
	sent         chan struct{}

	mu  sync.Mutex // of documents too
	got map[string]int
}

func newBridge(t *testing.T) *bridge {
	t.Helper()
	b := &bridge{t: t, got: make(map[string]int), sent: make(chan struct{}, 1)}
	b.documents, b.operations = specificationOf(t, "application-service/*.yaml")
	server := httptest.NewServer(b)
	t.Cleanup(server.Close)
	b.registration = object{"id": "bridge", "url": server.URL + "/below/", "as_token": bridgeToken, "hs_token": bridgeHSToken, "sender_localpart": "bridge",
		"rate_limited": false, "protocols": []string{"irc"}, "receive_ephemeral": true, "namespaces": object{
			"users":   []object{{"exclusive": true, "regex": "@_bridge_.*"}},
			"aliases": []object{{"exclusive": true, "regex": "#_bridge_.*"}},
			"rooms":   []object{{"exclusive": false, "regex": "!.*"}}}}
	return b
}

// find is the operation that a request is for.
func (b *bridge) find(r *http.Request) (o *operation, vars []string) {
	path, _ := strings.CutPrefix(r.URL.EscapedPath(), "/below")
	segments := strings.Split(path, "/")
	for _, o := range b.operations {
		method, template, _ := strings.Cut(o.name, " ")
		names := strings.Split(template, "/")
		if method != r.Method || len(names) != len(segments) {
			continue
		}
		var vars []string
		fits := true
		for i, name := range names {
			if strings.HasPrefix(name, "{") {
				value, err := url.PathUnescape(segments[i])
				vars, fits = append(vars, value), fits && err == nil && value != ""
			} else if name != segments[i] {
				fits = false
			}
		}
		if fits {
			return o, vars
		}
	}
	return nil, nil
}

func (b *bridge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the server has ended
	}
	o, vars := b.find(r)
	if o == nil {
		b.t.Errorf("application services have no %s %s", r.Method, r.RequestURI)
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, `{"errcode":"M_UNRECOGNIZED"}`)
		return
	}
	b.check(o, r, body)
	status, answer := b.answer(o, vars)
	b.mu.Lock()
	b.got[o.name]++
	b.mu.Unlock()
	select {
	case b.sent <- struct{}{}:
	default:
	}
	w.WriteHeader(status)
	_, _ = io.WriteString(w, answer) // the server may have ended
}

// check compares a request with its operation.
func (b *bridge) check(o *operation, r *http.Request, body []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if r.Header.Get("Authorization") != "Bearer "+bridgeHSToken || r.URL.Query().Has("access_token") {
		b.t.Errorf("%s: authorization %q, query %s", o.name, r.Header.Get("Authorization"), r.URL.RawQuery)
	}
	known := make(map[string]bool)
	for _, p := range b.documents.parameters(o) {
		name, _ := p["name"].(string)
		known[name] = p["in"] == "query"
	}
	for name := range r.URL.Query() {
		if !known[name] && !known["fields"] {
			b.t.Errorf("%s: the parameter %s is not in the specification", o.name, name)
		}
	}
	schema := b.documents.request(o)
	if schema == nil {
		if len(body) > 0 {
			b.t.Errorf("%s has a body: %s", o.name, body)
		}
		return
	}
	if r.Header.Get("Content-Type") != "application/json" {
		b.t.Errorf("%s: the body is %s", o.name, r.Header.Get("Content-Type"))
	}
	var value any
	if err := json.Unmarshal(body, &value); err != nil {
		b.t.Errorf("%s: %v", o.name, err)
		return
	}
	if problems := b.documents.check(o.file, schema, value, "$"); len(problems) > 0 {
		b.t.Errorf("%s is not as specified: %s\n%s", o.name, strings.Join(problems, "; "), body)
	}
	for _, e := range gjson.GetBytes(body, "ephemeral").Array() {
		if room := e.Get("room_id").Exists(); room != (e.Get("type").Str != "m.presence") {
			b.t.Errorf("%s: room_id of %s: %v", o.name, e.Raw, room)
		}
	}
}

// answer makes what is asked for, unless its name ends with no.
func (b *bridge) answer(o *operation, vars []string) (int, string) {
	no := func() bool { return strings.HasSuffix(strings.SplitN(vars[0], ":", 2)[0], "no") }
	switch operation := o.spec["operationId"]; operation {
	case "queryRoomByAlias", "queryUserById":
		if no() {
			return http.StatusNotFound, `{"errcode":"COM.EXAMPLE.NOT_FOUND"}`
		}
		localpart, _, _ := strings.Cut(vars[0][1:], ":")
		if operation == "queryRoomByAlias" {
			b.must("POST", "/createRoom", object{"preset": "public_chat", "room_alias_name": localpart})
		} else {
			b.must("POST", "/register", object{"type": "m.login.application_service", "username": localpart, "inhibit_login": true})
			b.must("PUT", "/profile/"+url.PathEscape(vars[0])+"/displayname?user_id="+url.QueryEscape(vars[0]), object{"displayname": "Made"})
		}
	case "getProtocolMetadata":
		return http.StatusOK, `{"user_fields":["nick"],"location_fields":["channel"],"icon":"mxc://a/b","field_types":{"nick":{"regexp":".*",
			"placeholder":"n"},"channel":{"regexp":".*","placeholder":"c"}},"instances":[{"desc":"Net","network_id":"net","fields":{}}]}`
	case "queryLocationByProtocol", "queryLocationByAlias":
		return http.StatusOK, `[{"alias":"#_bridge_x:test.example","protocol":"irc","fields":{"channel":"x"}}]`
	case "queryUserByProtocol", "queryUserByID":
		return http.StatusOK, `[{"userid":"@_bridge_x:test.example","protocol":"irc","fields":{"nick":"x"}}]`
	}
	return http.StatusOK, `{}`
}

// must sends a request to the homeserver.
func (b *bridge) must(method, path string, body object) {
	base, _ := b.homeserver.Load().(string)
	r, err := http.NewRequest(method, base+"/_matrix/client/v3"+path, bytes.NewReader([]byte(text(body))))
	if err != nil {
		b.t.Error(err)
		return
	}
	r.Header.Set("Authorization", "Bearer "+bridgeToken)
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		b.t.Error(err)
		return
	}
	defer answer.Body.Close()
	if got, err := io.ReadAll(answer.Body); answer.StatusCode != http.StatusOK || err != nil {
		b.t.Errorf("%s %s: %d %s %v", method, path, answer.StatusCode, got, err)
	}
}

// mustHaveGotAll waits until the service has got every request that the specification has.
func (b *bridge) mustHaveGotAll() {
	b.t.Helper()
	deadline := time.After(time.Minute)
	for {
		var missing []string
		b.mu.Lock()
		for _, o := range b.operations {
			if b.got[o.name] == 0 {
				missing = append(missing, o.name)
			}
		}
		b.mu.Unlock()
		if len(missing) == 0 {
			return
		}
		select {
		case <-b.sent:
		case <-deadline:
			b.t.Error(fmt.Sprint("application services were never sent ", missing))
			return
		}
	}
}
