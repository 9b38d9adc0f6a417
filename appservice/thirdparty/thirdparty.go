// Package thirdparty asks application services about third-party networks, and puts together what they answer
// (Application Service API, § Third-party networks).
//
// All services that are asked are asked at once. What does not answer in time, or not in the form of the
// specification, is left out; nothing a service answers is larger than a bound.
package thirdparty

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sync/singleflight"

	"github.com/matrix-org/dendrite/appservice/outgoing"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/lru"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/rawjson"
	"github.com/matrix-org/dendrite/common/registration"
)

const (
	// MaxWait is how long the answers of services are waited for.
	MaxWait = 5 * time.Second
	// MaxResults is how many results of one service are taken; the others are left out.
	MaxResults = 1000
	// keepProtocol is how long it is remembered what a service says of a protocol, and keepSilence that it does not
	// answer.
	keepProtocol = time.Minute
	keepSilence  = 10 * time.Second
	// protocolBytes is how much is remembered of that.
	protocolBytes = 16 << 20
	// maxDepth is how deep an answer may be nested.
	maxDepth = 20
)

const (
	modern = "/_matrix/app/v1/thirdparty"
	legacy = "/_matrix/app/unstable/thirdparty"
)

// Service asks. It is safe for concurrent use.
type Service struct {
	services *registration.Holder
	client   *outgoing.Client
	log      *logrus.Entry
	now      func() time.Time
	wait     time.Duration

	flight    singleflight.Group
	protocols *lru.Cache[key, known]
}

// key is a protocol of a service.
type key struct{ service, url, protocol string }

// known is what a service says of a protocol; nil: nothing that can be used.
type known struct {
	protocol *Protocol
	until    time.Time
}

// New makes a Service.
func New(services *registration.Holder, client *outgoing.Client, log *logrus.Entry, now func() time.Time) *Service {
	return &Service{services: services, client: client, log: log, now: now, wait: MaxWait,
		protocols: lru.New(protocolBytes, func(k key, v known) int {
			return len(k.service) + len(k.url) + len(k.protocol) + v.protocol.size()
		})}
}

// Protocols are all that services know.
func (s *Service) Protocols(ctx context.Context) (map[string]*Protocol, error) {
	var pairs []pair
	for _, r := range s.services.Load().All() {
		for i, name := range r.Protocols {
			if r.URL != "" && !slices.Contains(r.Protocols[:i], name) {
				pairs = append(pairs, pair{r, name})
			}
		}
	}
	return s.ask(ctx, pairs)
}

// Protocol is one of them, put together from the services that have it. M_NOT_FOUND if none has that answers.
func (s *Service) Protocol(ctx context.Context, name string) (*Protocol, error) {
	var pairs []pair
	for _, r := range s.having(name) {
		pairs = append(pairs, pair{r, name})
	}
	all, err := s.ask(ctx, pairs)
	if err == nil && all[name] == nil {
		err = mxerr.NotFound("no application service answers for the protocol %q", name)
	}
	return all[name], err
}

// having lists the services that have a protocol.
func (s *Service) having(protocol string) (all []*registration.Registration) {
	for _, r := range s.services.Load().All() {
		if r.URL != "" && slices.Contains(r.Protocols, protocol) {
			all = append(all, r)
		}
	}
	return all
}

type pair struct {
	service  *registration.Registration
	protocol string
}

// ask puts together what services say of their protocols, in the order of the pairs.
func (s *Service) ask(ctx context.Context, pairs []pair) (map[string]*Protocol, error) {
	found := make([]*Protocol, len(pairs))
	var all sync.WaitGroup
	for i, p := range pairs {
		all.Go(func() { found[i] = s.protocol(ctx, p) })
	}
	all.Wait()
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("ask for protocols: %w", err)
	}
	merged := make(map[string]*Protocol)
	for i, p := range pairs {
		if found[i] != nil {
			merged[p.protocol] = merged[p.protocol].with(found[i])
		}
	}
	return merged, nil
}

// protocol is what a service says of a protocol; nil if it does not answer.
func (s *Service) protocol(ctx context.Context, p pair) *Protocol {
	k := key{p.service.ID, p.service.URL, p.protocol}
	if v, has := s.protocols.Get(k); has && s.now().Before(v.until) {
		return v.protocol
	}
	// One question serves all who wait for the same answer, so it outlives the first of them.
	detached := context.WithoutCancel(ctx)
	answer := s.flight.DoChan(fmt.Sprintf("%q", k), func() (any, error) {
		v := known{until: s.now().Add(keepProtocol)}
		body, err := s.get(detached, p.service, "/protocol/"+url.PathEscape(p.protocol), nil)
		if err == nil && body != nil {
			v.protocol, err = parseProtocol(p.service, body)
		}
		if err != nil {
			v.until = s.now().Add(keepSilence)
			s.silent(p.service, err)
		}
		s.protocols.Add(k, v)
		return v.protocol, nil
	})
	select {
	case <-ctx.Done():
		return nil
	case result := <-answer:
		protocol, _ := result.Val.(*Protocol)
		return protocol
	}
}

func (s *Service) silent(r *registration.Registration, err error) {
	s.log.WithError(err).WithField("service", r.ID).Warn("application service does not answer a third-party lookup")
}

// get sends a question of a path below thirdparty. No body and no error stand for a service that has nothing.
func (s *Service) get(ctx context.Context, r *registration.Registration, path string, query url.Values) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, s.wait)
	defer cancel()
	status, answer, err := s.client.Do(ctx, r, http.MethodGet, modern+path, legacy+path, query, nil)
	switch {
	case err != nil:
		return nil, err
	case status == http.StatusNotFound:
		return nil, nil
	case status < 200 || status >= 300:
		return nil, fmt.Errorf("the application service %s answers with status %d", r.ID, status)
	}
	answer = bytes.TrimSpace(answer)
	if err := rawjson.Check(answer, maxDepth); err != nil {
		return nil, fmt.Errorf("the application service %s answers with what is no JSON, or too long or deep: %w", r.ID, err)
	}
	return answer, nil
}

// Locations are the rooms that lead to a place of a network, as the services with the protocol find them by fields.
// M_NOT_FOUND if there is none.
func (s *Service) Locations(ctx context.Context, protocol string, fields url.Values) ([]Result, error) {
	return s.results(ctx, s.having(protocol), locations, "/location/"+url.PathEscape(protocol), protocol, fields)
}

// Users are the Matrix users who stand for a user of a network, as Locations finds rooms.
func (s *Service) Users(ctx context.Context, protocol string, fields url.Values) ([]Result, error) {
	return s.results(ctx, s.having(protocol), users, "/user/"+url.PathEscape(protocol), protocol, fields)
}

// LocationsOf are the places that the room of an alias leads to. M_NOT_FOUND if there is none.
func (s *Service) LocationsOf(ctx context.Context, alias id.RoomAlias) ([]Result, error) {
	return s.results(ctx, s.havingAny(), locations, "/location", "", url.Values{"alias": {string(alias)}})
}

// UsersOf are the users of networks for whom a Matrix user stands. M_NOT_FOUND if there is none.
func (s *Service) UsersOf(ctx context.Context, user id.UserID) ([]Result, error) {
	return s.results(ctx, s.havingAny(), users, "/user", "", url.Values{"userid": {string(user)}})
}

// havingAny lists the services that have a protocol, whichever.
func (s *Service) havingAny() (all []*registration.Registration) {
	for _, r := range s.services.Load().All() {
		if r.URL != "" && len(r.Protocols) > 0 {
			all = append(all, r)
		}
	}
	return all
}

func (s *Service) results(ctx context.Context, services []*registration.Registration, k kind, path, protocol string,
	query url.Values) ([]Result, error) {
	found := make([][]Result, len(services))
	var wait sync.WaitGroup
	for i, r := range services {
		wait.Go(func() {
			body, err := s.get(ctx, r, path, query)
			if err == nil && body != nil {
				found[i], err = parseResults(r, k, protocol, body)
			}
			if err != nil && ctx.Err() == nil {
				s.silent(r, err)
			}
		})
	}
	wait.Wait()
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("third-party lookup: %w", err)
	}
	all := slices.Concat(found...)
	if len(all) == 0 {
		return nil, mxerr.NotFound("no application service finds a %s", k.what)
	}
	return all, nil
}

// Result is a location or a user, as a service has it.
type Result map[string]json.RawMessage
