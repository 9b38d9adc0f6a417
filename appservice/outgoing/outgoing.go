// Package outgoing sends requests to application services (Application Service API, § Homeserver -> Application
// Service API).
//
// What a service does (hang, answer without end, send on to elsewhere) costs only those who wait for this service:
// each has connections of its own and a bound on requests under way, and each answer has a bound in size and time.
// Only appservice uses the package.
package outgoing

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/matrix-org/dendrite/common/component"
	"github.com/matrix-org/dendrite/common/netpolicy"
	"github.com/matrix-org/dendrite/common/registration"
)

const (
	// MaxAnswer is how much of an answer is read, in bytes. The rest is left.
	MaxAnswer = 1 << 20
	// MaxWait is how long a request takes at most, from the first connection to the last byte.
	MaxWait = time.Minute
	// maxQuestions and maxOthers are how many requests to a service are under way in this process: of those with GET,
	// and of others. Questions that hang never keep a transaction waiting.
	maxQuestions = 16
	maxOthers    = 4
)

// ErrNoURL is for services that want no requests.
var ErrNoURL = errors.New("the application service has no url")

// Client sends requests to application services. It is safe for concurrent use.
type Client struct {
	connect func() *http.Client
	now     func() time.Time
	wait    time.Duration

	mu       sync.Mutex
	services map[string]*service // by id
}

// service is what is kept of a service.
type service struct {
	url               string
	http              *http.Client
	questions, others chan struct{} // full: no more may start
	routes            routes
}

// New makes a Client that keeps to the network policy for application services.
func New(deps component.Deps) *Client {
	return &Client{connect: func() *http.Client { return deps.Outgoing(netpolicy.ApplicationServices) }, now: time.Now, wait: MaxWait,
		services: make(map[string]*service)}
}

// Do sends a request to a service and returns the status and at most MaxAnswer bytes of the answer. Any status is an
// answer; redirections are not followed. path begins with a slash, and what is variable in it is escaped. legacyPath
// is where drafts of the specification had the endpoint, empty if they had not: it is tried if the service does not
// know path (see unknownRoute). The error is ErrNoURL, or why there is no answer (see TimedOut); it has no token in
// it.
func (c *Client) Do(ctx context.Context, r *registration.Registration, method, path, legacyPath string, query url.Values,
	body []byte) (status int, answer []byte, err error) {
	if r.URL == "" {
		return 0, nil, ErrNoURL
	}
	ctx, cancel := context.WithTimeout(ctx, c.wait)
	defer cancel()
	s := c.service(r)
	lane := s.others
	if method == http.MethodGet {
		lane = s.questions
	}
	select {
	case lane <- struct{}{}:
		defer func() { <-lane }()
	case <-ctx.Done():
		return 0, nil, fmt.Errorf("wait for other requests to the application service %s: %w", r.ID, ctx.Err())
	}
	send := func(path string) (int, []byte, error) { return s.send(ctx, r, method, path, query, body) }
	if legacyPath == "" {
		return send(path)
	}
	return s.routes.choose(c.now, method, path, legacyPath, send)
}

// service finds what is kept of a service. One that has moved starts anew.
func (c *Client) service(r *registration.Registration) *service {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.services[r.ID]
	if s != nil && s.url == r.URL {
		return s
	}
	if s != nil {
		s.http.CloseIdleConnections()
	}
	client := *c.connect()
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	s = &service{url: r.URL, http: &client, questions: make(chan struct{}, maxQuestions), others: make(chan struct{}, maxOthers)}
	c.services[r.ID] = s
	return s
}

func (s *service) send(ctx context.Context, r *registration.Registration, method, path string, query url.Values,
	body []byte) (status int, answer []byte, err error) {
	if r.LegacyToken {
		all := url.Values{"access_token": {r.HSToken}}
		for name, values := range query {
			if name != "access_token" {
				all[name] = values
			}
		}
		query = all
	}
	to := r.URL + path
	if len(query) > 0 {
		to += "?" + query.Encode()
	}
	request, err := http.NewRequestWithContext(ctx, method, to, bytes.NewReader(body))
	if err != nil {
		return 0, nil, fmt.Errorf("request to the application service %s: %w", r.ID, withoutURL(err))
	}
	request.Header.Set("Authorization", "Bearer "+r.HSToken)
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := s.http.Do(request)
	if err != nil {
		return 0, nil, fmt.Errorf("ask the application service %s: %w", r.ID, withoutURL(err))
	}
	// Closing an answer that was not read to its end closes its connection.
	defer func() { _ = response.Body.Close() }()
	answer, err = io.ReadAll(io.LimitReader(response.Body, MaxAnswer))
	if err != nil {
		return 0, nil, fmt.Errorf("read the answer of the application service %s: %w", r.ID, withoutURL(err))
	}
	return response.StatusCode, answer, nil
}

// withoutURL takes the URL out of an error: its query may have a token.
func withoutURL(err error) error {
	var of *url.Error
	if errors.As(err, &of) {
		return of.Err
	}
	return err
}

// TimedOut tells whether a request failed because there was no answer in time.
func TimedOut(err error) bool {
	var n net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &n) && n.Timeout()
}
