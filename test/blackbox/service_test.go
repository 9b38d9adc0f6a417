package blackbox

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidwall/gjson"
)

// serviceWait is how long a test waits for a service to get what it must get.
const serviceWait = 60 * time.Second

// transaction is one that a service was sent: each attempt is one.
type transaction struct {
	id   string
	body gjson.Result
	at   time.Time
	took bool // it was answered with 200
}

// service is an application service with a server of its own. It takes every transaction, unless answer says otherwise.
type service struct {
	*httptest.Server
	t *testing.T
	d *deployment
	// registration is what the server was told of it, by the names of the specification.
	registration object
	id           string
	prefix       string // of the localparts of its users and aliases
	token        string // its as_token
	sender       string // its user

	mu       sync.Mutex
	attempts []transaction
	bodies   map[string]string // of transactions, by id
	changed  chan struct{}
	answer   func(w http.ResponseWriter, r *http.Request, txn transaction) (status int, body string)
	handle   func(w http.ResponseWriter, r *http.Request) bool
}

// newService registers an application service, with exclusive namespaces of users and aliases, until the test's end.
// edit changes the registration, which has the members of the specification.
func newService(t *testing.T, d *deployment, edit func(s *service, registration object)) *service {
	t.Helper()
	s := unregistered(t, d)
	if edit != nil {
		edit(s, s.registration)
	}
	s.register(s.registration)
	t.Cleanup(func() {
		if err := d.Register(s.id, ""); err != nil {
			t.Errorf("removing the registration: %v", err)
		}
	})
	return s
}

// unregistered is a service that the server does not know yet.
func unregistered(t *testing.T, d *deployment) *service {
	t.Helper()
	name := strings.ToLower(rand.Text()[:8])
	s := &service{t: t, d: d, id: "service-" + name, prefix: "_" + name + "_", token: "as-" + rand.Text(),
		changed: make(chan struct{}),
		bodies:  make(map[string]string)}
	s.sender = s.user("bot")
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	s.registration = object{"id": s.id, "url": s.URL, "as_token": s.token, "hs_token": "hs-" + rand.Text(),
		"sender_localpart": s.prefix + "bot", "rate_limited": false, "namespaces": object{
			"users":   []object{{"exclusive": true, "regex": "@" + s.prefix + ".*"}},
			"aliases": []object{{"exclusive": true, "regex": "#" + s.prefix + ".*"}},
			"rooms":   []object{},
		}}
	return s
}

// register gives the server a registration, in place of the one before.
func (s *service) register(registration object) {
	s.t.Helper()
	// JSON is YAML too.
	text, err := json.Marshal(registration)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.d.Register(s.id, string(text)); err != nil {
		s.t.Fatal(err)
	}
}

// user is the id of a user of the service.
func (s *service) user(name string) string { return "@" + s.prefix + name + ":test.example" }

// As is a client of the service that acts as a user; as its own if the id is empty.
func (s *service) As(userID string) *client {
	c := s.d.anybody(s.t)
	c.token, c.userID = s.token, s.sender
	if userID != "" {
		c.userID, c.as = userID, url.Values{"user_id": {userID}}
	}
	return c
}

// ghost registers a user of the service, and acts as the user.
func (s *service) ghost(name string) *client {
	s.t.Helper()
	s.As("").must("POST", at("register"), object{"type": "m.login.application_service", "username": s.prefix + name,
		"inhibit_login": true})
	return s.As(s.user(name))
}

// answers says how transactions are answered from now on. Status 0: the answer was written already.
func (s *service) answers(answer func(w http.ResponseWriter, r *http.Request, txn transaction) (
	status int, body string)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

// handles says how other requests are answered; it tells whether it has answered.
func (s *service) handles(handle func(w http.ResponseWriter, r *http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handle = handle
}

// ServeHTTP is the service's side of the Application Service API.
func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	answer, handle := s.answer, s.handle
	s.mu.Unlock()
	if r.Header.Get("Authorization") != "Bearer "+s.registration["hs_token"].(string) {
		s.t.Errorf("%s %s without the hs_token", r.Method, r.URL.Path)
	}
	if handle != nil && handle(w, r) {
		return
	}
	w.Header().Set("Content-Type", "application/json")
	txnID, is := strings.CutPrefix(r.URL.Path, "/_matrix/app/v1/transactions/")
	switch {
	case is && r.Method == http.MethodPut:
	case r.URL.Path == "/_matrix/app/v1/ping" && r.Method == http.MethodPost:
		_, _ = io.WriteString(w, "{}") // the server may have gone
		return
	default:
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, `{"errcode":"M_NOT_FOUND","error":"the service has nothing there"}`)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the server was killed
	}
	txn := transaction{id: txnID, body: gjson.ParseBytes(body), at: time.Now()}
	s.mu.Lock()
	if before, has := s.bodies[txnID]; has && before != string(body) {
		s.t.Errorf("transaction %s came again with another body", txnID)
	}
	s.bodies[txnID] = string(body)
	s.mu.Unlock()
	if n := len(txn.body.Get("events").Array()); n > 100 {
		s.t.Errorf("a transaction has %d events", n)
	}
	status, text := http.StatusOK, "{}"
	if answer != nil {
		status, text = answer(w, r, txn)
	}
	txn.took = status == http.StatusOK
	s.mu.Lock()
	s.attempts = append(s.attempts, txn)
	close(s.changed)
	s.changed = make(chan struct{})
	s.mu.Unlock()
	if status != 0 {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, text) // the server may have gone
	}
}

// sent are the attempts up to now, and what is closed at the next.
func (s *service) sent() (attempts []transaction, changed <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.attempts[:len(s.attempts):len(s.attempts)], s.changed
}

// taken are the transactions that the service took, each once.
func taken(attempts []transaction) []transaction {
	var all []transaction
	seen := make(map[string]bool)
	for _, txn := range attempts {
		if txn.took && !seen[txn.id] {
			seen[txn.id] = true
			all = append(all, txn)
		}
	}
	return all
}

// entries are those of a member of the transactions that the service took, such as events.
func entries(attempts []transaction, member string) []gjson.Result {
	var all []gjson.Result
	for _, txn := range taken(attempts) {
		all = append(all, txn.body.Get(escape(member)).Array()...)
	}
	return all
}

// await waits until what the service was sent is as it should be. The test ends if that does not come.
func (s *service) await(what string, is func(attempts []transaction) bool) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), serviceWait)
	defer cancel()
	for {
		attempts, changed := s.sent()
		if is(attempts) {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			s.t.Fatalf("%s: the service has got %d transactions with %d events, and not that", what,
				len(taken(attempts)),
				len(entries(attempts, "events")))
		}
	}
}

// event waits for an event and returns it as the service got it.
func (s *service) event(eventID string) (found gjson.Result) {
	s.t.Helper()
	s.await("event "+eventID, func(attempts []transaction) bool {
		for _, e := range entries(attempts, "events") {
			if e.Get("event_id").Str == eventID {
				found = e
				return true
			}
		}
		return false
	})
	return found
}

// entry waits for the first entry of a member, such as ephemeral, that is as is wants it.
func (s *service) entry(member string, is func(e gjson.Result) bool) (found gjson.Result) {
	s.t.Helper()
	s.await("an entry of "+member, func(attempts []transaction) bool {
		for _, e := range entries(attempts, member) {
			if is(e) {
				found = e
				return true
			}
		}
		return false
	})
	return found
}

// eventsOf are the ids of the events of a room that the service has got, in order.
func (s *service) eventsOf(room string) []string {
	attempts, _ := s.sent()
	var all []string
	for _, e := range entries(attempts, "events") {
		if e.Get("room_id").Str == room {
			all = append(all, e.Get("event_id").Str)
		}
	}
	return all
}
