// Package ping asks an application service whether it can be reached (Application Service API, § Pinging).
package ping

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/matrix-org/dendrite/appservice/api"
	"github.com/matrix-org/dendrite/appservice/outgoing"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/registration"
	"github.com/matrix-org/dendrite/common/rpc"
)

const (
	// MaxWait is how long the answer of a service is waited for.
	MaxWait = 20 * time.Second
	// maxBody is how much of a bad answer is shown, in bytes.
	maxBody = 4 << 10
)

// Service pings.
type Service struct {
	Services *registration.Holder
	Client   *outgoing.Client
	// Alive is told of each ping that was answered well: what waits for the service is sent at once.
	Alive rpc.Call[api.NoteAliveRequest, api.Empty]
	Log   *logrus.Entry
	// Wait is MaxWait, but for tests.
	Wait time.Duration
}

// Ping is of the contract. A ping that fails changes nothing about what is sent to the service: it may be one that
// knows no pings.
func (s *Service) Ping(ctx context.Context, req api.PingRequest) (api.PingResponse, error) {
	var none api.PingResponse
	r := s.Services.Load().ByID(req.Service)
	if r == nil {
		return none, mxerr.NotFound("there is no application service %s", req.Service)
	}
	body, err := json.Marshal(struct {
		TransactionID string `json:"transaction_id,omitempty"`
	}{req.TransactionID})
	if err != nil {
		return none, fmt.Errorf("body of a ping: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, s.Wait)
	defer cancel()
	began := time.Now()
	status, answer, err := s.Client.Do(ctx, r, http.MethodPost, "/_matrix/app/v1/ping", "", nil, body)
	took := time.Since(began)
	switch {
	case errors.Is(err, outgoing.ErrNoURL):
		return none, mxerr.New(http.StatusBadRequest, "M_URL_NOT_SET", "the registration of %s has no url", r.ID)
	case outgoing.TimedOut(err):
		return none, mxerr.New(http.StatusGatewayTimeout, "M_CONNECTION_TIMEOUT", "%s did not answer in %s", shown(r), took.Round(time.Millisecond))
	case err != nil:
		return none, mxerr.New(http.StatusBadGateway, "M_CONNECTION_FAILED", "%s cannot be reached: %v", shown(r), err)
	case status < 200 || status >= 300:
		return none, mxerr.New(http.StatusBadGateway, "M_BAD_STATUS", "%s answered with status %d", shown(r), status).
			With("status", status).With("body", text(answer))
	}
	if _, err := s.Alive(ctx, api.NoteAliveRequest{Service: r.ID}); err != nil {
		// The ping was answered all the same. What waits is tried again in its time.
		s.Log.WithError(err).WithField("service", r.ID).Warn("what waits for an application service is not sent at once")
	}
	return api.PingResponse{DurationMS: took.Milliseconds()}, nil
}

// shown is where a service is, for its owner.
func shown(r *registration.Registration) string {
	u, err := url.Parse(r.URL)
	if err != nil {
		return r.ID
	}
	return u.Redacted()
}

// text is the beginning of an answer, as valid UTF-8.
func text(answer []byte) string {
	if len(answer) > maxBody {
		answer = answer[:maxBody]
	}
	return strings.ToValidUTF8(string(answer), "\uFFFD")
}
