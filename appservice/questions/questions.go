// Package questions asks application services whether an alias or a user of their namespaces exists, so that they
// make what does (Application Service API, § Querying).
//
// A question is asked outside of every lock and transaction. Within a process it is under way once at a time, however
// many wait for its answer; and for a moment after a service has declined, it is not asked again.
package questions

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sync/singleflight"

	"github.com/matrix-org/dendrite/appservice/api"
	"github.com/matrix-org/dendrite/common/lru"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/registration"
)

const (
	// MaxWait is how long the answers of all services together are waited for. Callers in other processes wait a
	// little longer (rpc.DefaultTimeout).
	MaxWait = 25 * time.Second
	// attempts is how often a service is asked that does not answer, attemptWait how long one attempt takes at most,
	// and pause how long it is waited between the first two. Later pauses double.
	attempts    = 3
	attemptWait = 10 * time.Second
	pause       = 500 * time.Millisecond
	// DeclinedFor is how long it is remembered that a service has declined.
	DeclinedFor = 5 * time.Second
	// MadeFor is how long it is remembered that it has made what was asked for: so long, somebody may come who has
	// looked for it before it was there.
	MadeFor = 2 * time.Second
	// keptBytes is how much is remembered of answers.
	keptBytes = 4 << 20
)

// Asker sends requests to application services; see outgoing.Client.
type Asker interface {
	Do(ctx context.Context, r *registration.Registration, method, path, legacyPath string, query url.Values,
		body []byte) (status int, answer []byte, err error)
}

// Service asks the questions. It is safe for concurrent use.
type Service struct {
	services *registration.Holder
	client   Asker
	log      *logrus.Entry
	now      func() time.Time
	wait     time.Duration
	pause    time.Duration

	flight singleflight.Group
	kept   *lru.Cache[key, answer]
}

// answer is what a service has said, and until when it is remembered.
type answer struct {
	exists bool
	until  time.Time
}

// key is a question to a service. The URL is part of it: another one is another program.
type key struct{ service, url, path string }

// New makes a Service.
func New(services *registration.Holder, client Asker, log *logrus.Entry, now func() time.Time) *Service {
	return &Service{services: services, client: client, log: log, now: now, wait: MaxWait, pause: pause,
		kept: lru.New(keptBytes, func(k key, _ answer) int { return len(k.service) + len(k.url) + len(k.path) })}
}

// QueryAlias is of the contract.
func (s *Service) QueryAlias(ctx context.Context, req api.QueryAliasRequest) (api.QueryAnswer, error) {
	return s.ask(ctx, s.services.Load().Aliases(req.Alias), req.By, "/rooms/"+url.PathEscape(string(req.Alias)))
}

// QueryUser is of the contract.
func (s *Service) QueryUser(ctx context.Context, req api.QueryUserRequest) (api.QueryAnswer, error) {
	return s.ask(ctx, s.services.Load().Users(req.UserID), req.By, "/users/"+url.PathEscape(string(req.UserID)))
}

// ask asks one service after the other, until one has made what is asked for: if two made it at once, one would fail.
// by is not asked: it waits for this server.
func (s *Service) ask(ctx context.Context, services []*registration.Registration, by, path string) (api.QueryAnswer, error) {
	var asked []*registration.Registration
	for _, r := range services {
		if r.URL != "" && r.ID != by {
			asked = append(asked, r)
		}
	}
	var silent error
	for _, r := range asked {
		exists, err := s.one(ctx, r, path, s.wait/time.Duration(len(asked)))
		switch {
		case ctx.Err() != nil:
			return api.QueryAnswer{}, fmt.Errorf("ask the application service %s: %w", r.ID, ctx.Err())
		case exists:
			return api.QueryAnswer{Exists: true}, nil
		case err != nil:
			silent = mxerr.New(http.StatusRequestTimeout, "M_UNKNOWN", "the application service %s, which could have it, does not answer: "+
				"try again later", r.ID)
		}
	}
	return api.QueryAnswer{}, silent
}

// one asks a service, together with others who ask the same. An error says that there was no answer.
func (s *Service) one(ctx context.Context, r *registration.Registration, path string, wait time.Duration) (bool, error) {
	k := key{r.ID, r.URL, path}
	if said, has := s.kept.Get(k); has && s.now().Before(said.until) {
		return said.exists, nil
	}
	// One question serves all who wait for the same answer, so it outlives the first of them.
	detached := context.WithoutCancel(ctx)
	said := s.flight.DoChan(fmt.Sprintf("%q", k), func() (any, error) {
		ctx, cancel := context.WithTimeout(detached, wait)
		defer cancel()
		exists, err := s.insist(ctx, r, path)
		switch {
		case err != nil:
			s.log.WithError(err).WithFields(logrus.Fields{"service": r.ID, "question": path}).Warn("application service does not answer")
		case exists:
			s.kept.Add(k, answer{true, s.now().Add(MadeFor)})
		default:
			s.kept.Add(k, answer{false, s.now().Add(DeclinedFor)})
		}
		return exists, err
	})
	select {
	case <-ctx.Done():
		return false, ctx.Err()
	case result := <-said:
		exists, _ := result.Val.(bool)
		return exists, result.Err
	}
}

// insist asks a service several times, if it must.
func (s *Service) insist(ctx context.Context, r *registration.Registration, path string) (exists bool, err error) {
	for attempt, wait := 1, s.pause; ; attempt, wait = attempt+1, 2*wait {
		exists, err = s.try(ctx, r, path)
		if err == nil || attempt == attempts {
			return exists, err
		}
		select {
		case <-ctx.Done():
			return false, err
		case <-time.After(wait):
		}
	}
}

// passing are the statuses of a service, or of what stands in front of it, that cannot answer now.
var passing = []int{http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests}

func (s *Service) try(ctx context.Context, r *registration.Registration, path string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptWait)
	defer cancel()
	status, _, err := s.client.Do(ctx, r, http.MethodGet, "/_matrix/app/v1"+path, path, nil, nil)
	switch {
	case err != nil:
		return false, err
	case status >= 200 && status < 300:
		return true, nil
	case status < 400 || status >= 500 || slices.Contains(passing, status):
		return false, fmt.Errorf("the application service %s answers with status %d", r.ID, status)
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		s.log.WithFields(logrus.Fields{"service": r.ID, "status": status}).Warn("application service refuses the hs_token")
	}
	return false, nil
}
