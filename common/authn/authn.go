// Package authn finds out whose an access token is, for every component that has public endpoints.
//
// Tokens belong to clientapi, which is asked through the function that New is given. A good answer is kept for a moment, so
// that a busy client does not cost a question a request; a token that is revoked elsewhere works on for that moment at most.
// Where the revocation happens in the same process, Forget ends it at once.
package authn

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/singleflight"

	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/registration"
)

// MaxTTL is the longest that an answer is kept.
const MaxTTL = time.Second

const (
	maxEntries   = 50000
	queryTimeout = 20 * time.Second
)

// Query asks the owner of tokens. user and device are those that an application service wants to act as, else empty. The
// address of the client is at ClientAddress(ctx).
type Query func(ctx context.Context, token string, user id.UserID, device id.DeviceID) (httputil.Caller, error)

// Authenticator is a cache in front of a Query. It is safe for concurrent use.
type Authenticator struct {
	query    Query
	ttl      time.Duration
	services *registration.Holder
	now      func() time.Time
	flight   singleflight.Group
	cache    *lru.Cache[key, entry]

	mu sync.Mutex
	// revoked counts calls of Forget. An answer that was asked for before the last one is not kept and not shared.
	revoked uint64
}

// key is a hash of the token, the user and the device that a request names: the cache holds nothing that lets anybody in, and
// nothing that is as long as clients like.
type key [sha256.Size]byte

func newKey(token string, user id.UserID, device id.DeviceID) key {
	return sha256.Sum256(fmt.Appendf(nil, "%d:%s%d:%s%s", len(token), token, len(user), user, device))
}

type entry struct {
	caller httputil.Caller
	until  time.Time
	// services were in force when the question was asked. Others may have no such service, or other users for it.
	services *registration.Set
}

func (e *entry) holds(now time.Time, services *registration.Set) bool {
	return now.Before(e.until) && (e.caller.AppService == "" || e.services == services)
}

// New makes an Authenticator that keeps good answers for ttl, and not longer than MaxTTL. Errors are not kept, and answers
// about application services end with the registrations that were in force; services may be nil.
func New(query func(ctx context.Context, token string, user id.UserID, device id.DeviceID) (httputil.Caller, error), ttl time.Duration,
	services *registration.Holder) *Authenticator {
	cache, err := lru.New[key, entry](maxEntries)
	if err != nil {
		panic(fmt.Sprintf("a cache of %d entries: %v", maxEntries, err)) // the size is a constant, and a good one
	}
	return &Authenticator{query: query, ttl: min(ttl, MaxTTL), services: services, now: time.Now, cache: cache}
}

// Authenticate tells whose a token is. Requests of an application service name the user and the device to act as in their
// query (Application Service API, § Identity assertion). M_INVALID_PARAM if a part of it cannot be read: it could be who
// is meant, and the service must not act as its own user instead.
func (a *Authenticator) Authenticate(ctx context.Context, token string, r *http.Request) (httputil.Caller, error) {
	query, unread := url.ParseQuery(r.URL.RawQuery)
	caller, err := a.authenticate(ctx, token, query, r)
	if err == nil && unread != nil && caller.AppService != "" {
		return httputil.Caller{}, mxerr.InvalidParam("the query cannot be read: %v", unread)
	}
	return caller, err
}

func (a *Authenticator) authenticate(
	ctx context.Context, token string, query url.Values, r *http.Request,
) (httputil.Caller, error) {
	var user id.UserID
	var device id.DeviceID
	if len(query) > 0 {
		user, device = id.UserID(query.Get("user_id")), id.DeviceID(query.Get("device_id"))
		if device == "" {
			device = id.DeviceID(query.Get("org.matrix.msc3202.device_id")) // the name in MSC4326
		}
	}
	k, services := newKey(token, user, device), a.services.Load()
	if e, has := a.cache.Get(k); has && e.holds(a.now(), services) {
		return e.caller, nil
	}
	a.mu.Lock()
	revoked := a.revoked
	a.mu.Unlock()
	// One question serves all requests that wait for the same answer, so it outlives the first of them.
	detached := withAddress(context.WithoutCancel(ctx), httputil.ClientAddress(r))
	name := string(k[:]) + strconv.FormatUint(revoked, 10)
	answer := a.flight.DoChan(name, func() (any, error) {
		ctx, cancel := context.WithTimeout(detached, queryTimeout)
		defer cancel()
		caller, err := a.query(ctx, token, user, device)
		if err != nil {
			return nil, err
		}
		a.keep(k, entry{caller, a.now().Add(a.ttl), services}, revoked)
		return caller, nil
	})
	select {
	case <-ctx.Done():
		return httputil.Caller{}, ctx.Err()
	case result := <-answer:
		if result.Err != nil {
			return httputil.Caller{}, result.Err
		}
		caller, _ := result.Val.(httputil.Caller)
		return caller, nil
	}
}

func (a *Authenticator) keep(k key, e entry, revoked uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.revoked == revoked {
		a.cache.Add(k, e)
	}
}

// Forget drops what is kept of a device's tokens, or, if device is empty, of all tokens of the user. Answers that are under way
// are not kept either.
func (a *Authenticator) Forget(user id.UserID, device id.DeviceID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.revoked++
	for _, k := range a.cache.Keys() {
		if e, has := a.cache.Peek(k); has && e.caller.UserID == user && (device == "" || e.caller.DeviceID == device) {
			a.cache.Remove(k)
		}
	}
}

type addressKey struct{}

func withAddress(ctx context.Context, address string) context.Context {
	return context.WithValue(ctx, addressKey{}, address)
}

// ClientAddress is the address of the client whose token a Query is about; empty outside of a Query.
func ClientAddress(ctx context.Context) string {
	address, _ := ctx.Value(addressKey{}).(string)
	return address
}
