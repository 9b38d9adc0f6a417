package thirdparty

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/matrix-org/dendrite/appservice/outgoing"
	"github.com/matrix-org/dendrite/common/component"
	"github.com/matrix-org/dendrite/common/config"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/netpolicy"
	"github.com/matrix-org/dendrite/common/registration"
)

// fake is an application service.
type fake struct {
	id        string
	protocols []string
	answer    func(w http.ResponseWriter, r *http.Request)

	mu  sync.Mutex
	got []string
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.got = append(f.got, r.RequestURI)
	f.mu.Unlock()
	f.answer(w, r)
}

func (f *fake) requests() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.got)
}

func says(body string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(body))
	}
}

func newService(t *testing.T, all ...*fake) *Service {
	t.Helper()
	var c config.Network
	c.AllowPrivate.ApplicationServices = []string{"127.0.0.0/8"}
	policy, err := netpolicy.New(c)
	if err != nil {
		t.Fatal(err)
	}
	var registrations []*registration.Registration
	for _, f := range all {
		server := httptest.NewServer(f)
		t.Cleanup(server.Close)
		registrations = append(registrations, &registration.Registration{ID: f.id, URL: server.URL, ASToken: "as_" + f.id, HSToken: "hs_secret",
			Sender: id.NewUserID(f.id, "here"), Protocols: f.protocols})
	}
	set, err := registration.NewSet("here", append(registrations, &registration.Registration{ID: "no url", ASToken: "x", Sender: "@x:here",
		Protocols: []string{"irc"}}))
	if err != nil {
		t.Fatal(err)
	}
	log := logrus.New()
	log.SetOutput(t.Output())
	return New(registration.NewHolder(set), outgoing.New(component.Deps{Outgoing: policy.Client}), logrus.NewEntry(log), time.Now)
}

// same compares JSON.
func same(t *testing.T, got any, want string) {
	t.Helper()
	text, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	var a, b any
	if err := json.Unmarshal(text, &a); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(want), &b); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(a, b) {
		t.Errorf("got %s, not %s", text, want)
	}
}

func TestProtocolsOfSeveralServicesAreOne(t *testing.T) {
	one := &fake{id: "one", protocols: []string{"irc", "a/b?", "irc"}, answer: says(`{"user_fields":["network","nickname"],"location_fields":["channel"],
		"icon":"mxc://a/b","field_types":{"network":{"regexp":".*","placeholder":"x"}},
		"instances":[{"network_id":"libera","desc":"Libera","fields":{"network":"libera"},"icon":"mxc://i","bot_user_id":"@irc:here"}]}`)}
	two := &fake{id: "two", protocols: []string{"irc"}, answer: says(`{"user_fields":["other"],"location_fields":[],"icon":"","field_types":{},
		"instances":[{"network_id":"oftc","desc":"OFTC","fields":{}}]}`)}
	s := newService(t, one, two)
	irc, err := s.Protocol(t.Context(), "irc")
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"user_fields":["network","nickname"],"location_fields":["channel"],"icon":"mxc://a/b",
		"field_types":{"network":{"regexp":".*","placeholder":"x"}},"instances":[
		{"network_id":"libera","desc":"Libera","fields":{"network":"libera"},"icon":"mxc://i","bot_user_id":"@irc:here","instance_id":"one|libera"},
		{"network_id":"oftc","desc":"OFTC","fields":{},"instance_id":"two|oftc"}]}`
	same(t, irc, want)
	all, err := s.Protocols(t.Context())
	if err != nil || len(all) != 2 || all["a/b?"] == nil {
		t.Fatalf("%v %v", all, err)
	}
	same(t, all["irc"], want) // the first answer was not changed in the cache
	if want := []string{"/_matrix/app/v1/thirdparty/protocol/irc", "/_matrix/app/v1/thirdparty/protocol/a%2Fb%3F"}; !slices.Equal(one.requests(), want) {
		t.Errorf("requests %q, not %q", one.requests(), want)
	}
	if _, err := s.Protocol(t.Context(), "xmpp"); !mxerr.Is(err, "M_NOT_FOUND") {
		t.Errorf("a protocol that nobody has: %v", err)
	}
}

func TestLaxTypesOfAProtocolAreAccepted(t *testing.T) {
	for body, want := range map[string]string{
		`{}`: `{"user_fields":[],"location_fields":[],"icon":"","field_types":{},"instances":[]}`,
		`{"user_fields":null,"location_fields":"x","icon":null,"field_types":[],"instances":null}`: `{"user_fields":[],"location_fields":[],"icon":"",
			"field_types":{},"instances":[]}`,
		`{"user_fields":["a",null,1],"icon":5,"field_types":{"a":{"regexp":1},"b":null},"instances":[null,{"network_id":7,"fields":null,"icon":null},"x"],"more":{}}`: `{
			"user_fields":["a","1"],"location_fields":[],"icon":"5","field_types":{"a":{"regexp":"1","placeholder":""}},
			"instances":[{"network_id":"7","desc":"","fields":{},"icon":"","instance_id":"one|7"}]}`,
	} {
		s := newService(t, &fake{id: "one", protocols: []string{"irc"}, answer: says(body)})
		p, err := s.Protocol(t.Context(), "irc")
		if err != nil {
			t.Errorf("%s: %v", body, err)
			continue
		}
		same(t, p, want)
	}
}

// bad are services that answer with nothing that can be used.
func bad() map[string]func(http.ResponseWriter, *http.Request) {
	return map[string]func(http.ResponseWriter, *http.Request){
		"no JSON":   says(`<html>`),
		"text":      says(`"x"`),
		"null":      says(`null`),
		"nothing":   says(``),
		"deep":      says(`{"a":` + strings.Repeat("[", 1000) + strings.Repeat("]", 1000) + `}`),
		"too long":  says(`{"icon":"` + strings.Repeat("x", outgoing.MaxAnswer) + `"}`),
		"500":       func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) },
		"404":       func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404) },
		"elsewhere": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/other", http.StatusFound) },
		"hangs":     func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
	}
}

func TestWhatDoesNotAnswerIsLeftOut(t *testing.T) {
	all := []*fake{{id: "good", protocols: []string{"irc"}, answer: says(`{"instances":[{"network_id":"n"}]}`)}}
	list := []*fake{{id: "good", protocols: []string{"irc"}, answer: says(`[{"alias":"#a:b","protocol":"irc","fields":{}}]`)}}
	for name, answer := range bad() {
		all = append(all, &fake{id: name, protocols: []string{"irc", "only " + name}, answer: answer})
		list = append(list, &fake{id: name, protocols: []string{"irc"}, answer: answer})
	}
	s := newService(t, all...)
	s.wait = 300 * time.Millisecond
	protocols, err := s.Protocols(t.Context())
	if err != nil || len(protocols) != 1 || len(protocols["irc"].Instances) != 1 {
		t.Errorf("%v %v", protocols, err)
	}
	// Silence is remembered too: who asks again does not wait again.
	before := make([]int, len(all))
	for i, f := range all {
		before[i] = len(f.requests())
	}
	if _, err := s.Protocols(t.Context()); err != nil {
		t.Error(err)
	}
	for i, f := range all {
		if n := len(f.requests()); n != before[i] {
			t.Errorf("%s was asked again", f.id)
		}
	}
	s = newService(t, list...)
	s.wait = 300 * time.Millisecond
	found, err := s.Locations(t.Context(), "irc", nil)
	if err != nil {
		t.Fatal(err)
	}
	same(t, found, `[{"alias":"#a:b","protocol":"irc","fields":{}}]`)
}

func TestProtocolsAreRememberedForAMinute(t *testing.T) {
	f := &fake{id: "one", protocols: []string{"irc"}, answer: says(`{}`)}
	s := newService(t, f)
	now := time.Now()
	s.now = func() time.Time { return now }
	for _, step := range []struct {
		after time.Duration
		asked int
	}{{0, 1}, {keepProtocol - 1, 1}, {1, 2}} {
		now = now.Add(step.after)
		if _, err := s.Protocol(t.Context(), "irc"); err != nil || len(f.requests()) != step.asked {
			t.Errorf("after %s: %d requests, %v", step.after, len(f.requests()), err)
		}
	}
}

func TestLookupsPassFieldsOnAndCheckResults(t *testing.T) {
	const results = `[{"alias":"#a:here","protocol":"irc","fields":{"channel":"#a"},"more":1},{"alias":"#b:here"},{"alias":"no alias","protocol":"irc"},null,7,
		{"userid":"@a:here","protocol":"irc","fields":null},{"userid":"a","protocol":"irc","fields":{}}]`
	one := &fake{id: "one", protocols: []string{"irc"}, answer: says(results)}
	two := &fake{id: "two", protocols: []string{"irc", "xmpp"}, answer: says(results)}
	three := &fake{id: "three", protocols: []string{"xmpp"}, answer: says(`[]`)}
	none := &fake{id: "none", answer: says(results)}
	s := newService(t, one, two, three, none)
	const a, b = `{"alias":"#a:here","protocol":"irc","fields":{"channel":"#a"},"more":1}`, `{"alias":"#b:here","protocol":"irc","fields":{}}`
	const user = `{"userid":"@a:here","protocol":"irc","fields":{}}`
	for _, c := range []struct {
		what    string
		find    func() ([]Result, error)
		want    string
		request string
	}{
		{"locations", func() ([]Result, error) {
			return s.Locations(t.Context(), "irc", url.Values{"channel": {"#a b"}, "x": {"1", "2"}})
		},
			`[` + a + `,` + b + `,` + a + `,` + b + `]`, "/_matrix/app/v1/thirdparty/location/irc?channel=%23a+b&x=1&x=2"},
		{"users", func() ([]Result, error) { return s.Users(t.Context(), "irc", url.Values{"nick": {"a"}}) },
			`[` + user + `,` + user + `]`, "/_matrix/app/v1/thirdparty/user/irc?nick=a"},
		// Which protocol a result has that does not say, is known of a service with one only.
		{"locations of an alias", func() ([]Result, error) { return s.LocationsOf(t.Context(), "#x:here") },
			`[` + a + `,` + b + `,` + a + `]`, "/_matrix/app/v1/thirdparty/location?alias=%23x%3Ahere"},
		{"users of a user", func() ([]Result, error) { return s.UsersOf(t.Context(), "@x:here") },
			`[` + user + `,` + user + `]`, "/_matrix/app/v1/thirdparty/user?userid=%40x%3Ahere"},
	} {
		found, err := c.find()
		if err != nil {
			t.Errorf("%s: %v", c.what, err)
			continue
		}
		same(t, found, c.want)
		if got := one.requests(); got[len(got)-1] != c.request {
			t.Errorf("%s: %s, not %s", c.what, got[len(got)-1], c.request)
		}
	}
	if len(none.requests()) > 0 {
		t.Errorf("a service without protocols was asked %q", none.requests())
	}
	if _, err := s.Locations(t.Context(), "telegram", nil); !mxerr.Is(err, "M_NOT_FOUND") {
		t.Errorf("a protocol that nobody has: %v", err)
	}
	nothing := newService(t, &fake{id: "one", protocols: []string{"irc"}, answer: says(`[]`)})
	if _, err := nothing.UsersOf(t.Context(), "@x:here"); !mxerr.Is(err, "M_NOT_FOUND") {
		t.Errorf("nothing is found: %v", err)
	}
}

func TestResultsOfOneServiceAreBounded(t *testing.T) {
	var all []string
	for i := range MaxResults + 100 {
		all = append(all, fmt.Sprintf(`{"alias":"#%d:here","protocol":"irc","fields":{}}`, i))
	}
	s := newService(t, &fake{id: "one", protocols: []string{"irc"}, answer: says("[" + strings.Join(all, ",") + "]")})
	if found, err := s.Locations(t.Context(), "irc", nil); err != nil || len(found) != MaxResults {
		t.Errorf("%d results, %v", len(found), err)
	}
}

func TestLookupsKnowTheOlderPaths(t *testing.T) {
	f := &fake{id: "one", protocols: []string{"irc"}, answer: func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, legacy) {
			says(`[{"userid":"@a:here","protocol":"irc","fields":{}}]`)(w, r)
			return
		}
		http.NotFound(w, r)
	}}
	if found, err := newService(t, f).Users(t.Context(), "irc", nil); err != nil || len(found) != 1 {
		t.Errorf("%v %v; requests %q", found, err, f.requests())
	}
}
