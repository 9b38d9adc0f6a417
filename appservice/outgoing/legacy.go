package outgoing

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"time"
)

// tryAnew is how long it is remembered which of its paths a service knows.
const tryAnew = time.Hour

// routes remembers where a service has its endpoints (§ Legacy routes).
type routes struct {
	mu    sync.Mutex
	known map[string]route // by the kind of endpoint
}

type route struct {
	legacy bool
	until  time.Time
}

// kind is the first segment of a legacy path: what one service has of it, it has whole. There are few.
func kind(legacyPath string) string {
	first, _, _ := strings.Cut(strings.TrimPrefix(legacyPath, "/"), "/")
	return first
}

func (r *routes) get(kind string, now time.Time) (k route, has bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	k, has = r.known[kind]
	return k, has && now.Before(k.until)
}

func (r *routes) set(kind string, legacy bool, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.known == nil {
		r.known = make(map[string]route)
	}
	r.known[kind] = route{legacy, now.Add(tryAnew)}
}

// choose sends a request to the path that the service knows: first to the one that it was seen to know in the last
// hour, else to that of the specification; and to the other if the service says that it has no such route. A service
// that has answered well on the specification's path within the hour is not asked elsewhere: what stands in front of
// it may answer in its place.
func (r *routes) choose(now func() time.Time, method, path, legacyPath string, send func(path string) (int, []byte, error)) (
	status int, answer []byte, err error) {
	k, known := r.get(kind(legacyPath), now())
	first, second, legacyFirst := path, legacyPath, false
	if known && k.legacy {
		first, second, legacyFirst = legacyPath, path, true
	}
	status, answer, err = send(first)
	if err != nil {
		return 0, nil, err
	}
	if !unknownRoute(method, status, answer) {
		// A legacy route is not remembered for longer by its use: the specification's is tried anew.
		if success(status) && !legacyFirst {
			r.set(kind(legacyPath), false, now())
		}
		return status, answer, nil
	}
	if known && !legacyFirst {
		return status, answer, nil
	}
	other, otherAnswer, err := send(second)
	if err != nil {
		return 0, nil, err
	}
	if unknownRoute(method, other, otherAnswer) {
		return status, answer, nil
	}
	if success(other) {
		r.set(kind(legacyPath), !legacyFirst, now())
	}
	return other, otherAnswer, nil
}

func success(status int) bool { return status >= 200 && status < 300 }

// unknownRoute tells whether a service says that it has no such endpoint, so that it has done nothing:
// M_UNRECOGNIZED, and the statuses 404, 405 and 501. A question that is answered with 404 and another errcode is
// answered: there is no such user.
//
// The specification would also try the other path after a 500. That could be a service that has the endpoint and
// failed in it: it would get a transaction twice, under two paths, and one that knows no other path would seem to
// have no such user.
func unknownRoute(method string, status int, answer []byte) bool {
	switch {
	case status < 400:
		return false
	case status == http.StatusMethodNotAllowed || status == http.StatusNotImplemented:
		return true
	}
	var e struct {
		Code string `json:"errcode"`
	}
	// What is no JSON has no errcode.
	_ = json.Unmarshal(answer, &e)
	return e.Code == "M_UNRECOGNIZED" || status == http.StatusNotFound && (method != http.MethodGet || e.Code == "")
}
