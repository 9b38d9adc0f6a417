// Package component is the form that every component has, so that one launcher starts any of them, alone or together.
//
// A component's package has one constructor, New(ctx, deps, peers…). It builds and connects the parts and starts nothing. Peers
// are pointers to the contracts of other components; they are filled after all components of the process are constructed and
// before Run, so New only keeps the pointers.
package component

import (
	"context"
	"net/http"

	"github.com/opentracing/opentracing-go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"

	"github.com/matrix-org/dendrite/common/config"
	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/netpolicy"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/common/registration"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// Deps are what a component is built from. Everything is safe for concurrent use and outlives the component.
type Deps struct {
	Config *config.Config
	// DB is where the component keeps its tables. In one process several components may share it.
	DB *sqlutil.DB
	// Log has the component's name.
	Log    *logrus.Entry
	Tracer opentracing.Tracer
	// Metrics labels what is registered with the component's name.
	Metrics prometheus.Registerer
	// Signer signs for this server.
	Signer pdu.Signer
	// Auth finds out whose an access token is, for what is not served by a Route.
	Auth httputil.Authenticator
	// Limits are the rate limits, for what cannot be limited by a Route's Limit.
	Limits httputil.Limiter
	// Outgoing makes the client for requests of a purpose that leave the server. It keeps to the network policy.
	Outgoing func(purpose netpolicy.Purpose) *http.Client
	// Registrations are those of the application services; they may change while the component runs.
	Registrations *registration.Holder
	// Transport carries logs and ephemeral messages to and from other components.
	Transport eventlog.Transport
	// Sole says that no other process serves this component's tables while this one runs, but for the operator's tools.
	Sole bool
	// Draining is closed when the process is about to end: long polls answer at once with what they have.
	Draining <-chan struct{}
}

// Component is what a New returns.
type Component struct {
	Name string
	// API points to the component's contract, filled with its own functions; nil if it has none.
	API any
	// Routes are its public endpoints.
	Routes []httputil.Route
	// Run does what goes on in the background, such as following logs, until ctx ends. It returns when everything has
	// stopped. An error ends the process. Nil if there is nothing to do.
	Run func(ctx context.Context) error
	// Ready tells why the component cannot do its work now. Only its own database and the broker count, not other components.
	// Nil if it always can.
	Ready func(ctx context.Context) error
}
