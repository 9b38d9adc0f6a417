// Package httputil is the one way in which public endpoints are declared, requests are read, and answers and errors are written
// (Client-Server API, § API Standards).
//
// A component's routing package is a table of Routes. A Router finds the route of a request by its path's segments, authenticates
// the caller, applies limits of rate and size, runs the Handler, and writes what it returns.
package httputil

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/matrix-org/dendrite/common/id"
)

// Auth says who may call an endpoint.
type Auth int

// The kinds of authentication.
const (
	AuthNone     Auth = iota // nobody is asked
	AuthOptional             // a valid token makes a Caller, none makes none, an invalid one is refused
	AuthUser                 // users with an account
	AuthGuest                // users and guests
)

// DefaultMaxBody limits request bodies of routes that do not say otherwise, in bytes.
const DefaultMaxBody = 1 << 20

// Route is an endpoint.
type Route struct {
	Method string
	// Path has segments that are literal, a variable {name}, or a choice {a|b|c}.
	Path string
	// Name is the endpoint's in metrics, traces and logs.
	Name string
	Auth Auth
	// Locked says that locked accounts may use it too (§ Account locking).
	Locked  bool
	MaxBody int64  // bytes; 0: DefaultMaxBody
	Limit   string // name of the rate limit; empty: none
	// Large says that an answer may have many bytes: only so many are made at once (AnswerBudget).
	Large   bool
	Handler Handler
}

// Handler does what an endpoint is for. What it returns is written as JSON with status 200, unless it is a Raw; nil is an empty
// object; a Stream writes itself. An error is written as the *mxerr.Error in its chain, or as M_UNKNOWN with status 500.
type Handler func(ctx context.Context, r *Request) (any, error)

// Raw is an answer that is not to be marshalled.
type Raw struct {
	Status      int    // 0: 200
	ContentType string // empty: application/json
	Body        []byte
}

// Stream is an answer that is too large to be held in memory. An error is for the log: the answer has begun.
type Stream func(w http.ResponseWriter) error

// Caller is who sent a request.
type Caller struct {
	UserID     id.UserID   `json:"user_id"`
	DeviceID   id.DeviceID `json:"device_id,omitempty"`
	Guest      bool        `json:"guest,omitempty"`
	Admin      bool        `json:"admin,omitempty"`
	Locked     bool        `json:"locked,omitempty"`
	Suspended  bool        `json:"suspended,omitempty"`
	AppService string      `json:"app_service,omitempty"` // id of the application service that acts
	// Unlimited says that no rate limit counts, as an application service's registration may say.
	Unlimited bool `json:"unlimited,omitempty"`
	// TokenHash names the access token, for what is scoped by it.
	TokenHash string `json:"token_hash,omitempty"`
}

// Authenticator finds out whose a token is. Errors are M_UNKNOWN_TOKEN and what may pass.
type Authenticator interface {
	Authenticate(ctx context.Context, token string, r *http.Request) (Caller, error)
}

// Limiter decides whether a caller may go on. It returns an M_LIMIT_EXCEEDED otherwise. Return takes back what Allow
// has counted.
type Limiter interface {
	Allow(limit, caller string) error
	Return(limit, caller string)
}

// Object is a JSON object that is made on the spot.
type Object map[string]any

// Empty is the answer of endpoints that have nothing to say.
var Empty = json.RawMessage(`{}`)
