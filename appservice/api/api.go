// Package api is what other components may ask of appservice: the questions that only application services can answer, and
// how far each of them is.
package api

import (
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/rpc"
)

// AppserviceAPI is the contract.
type AppserviceAPI struct {
	// QueryAlias asks the services whose namespaces have an alias whether they make a room for it (Application Service API,
	// § Querying). It returns when one has, and the alias is then found; or when all have declined. M_UNKNOWN with status 408
	// if one that could have it did not answer in time.
	QueryAlias rpc.Call[QueryAliasRequest, QueryAnswer]
	// QueryUser asks the services whose namespaces have a local user whether they make the user, as QueryAlias does.
	QueryUser rpc.Call[QueryUserRequest, QueryAnswer]

	// Ping asks a service whether it can be reached (Application Service API, § Pinging). M_URL_NOT_SET,
	// M_CONNECTION_FAILED, M_CONNECTION_TIMEOUT and M_BAD_STATUS as POST /appservice/{appserviceId}/ping has them.
	Ping rpc.Call[PingRequest, PingResponse]
	// NoteAlive says that a service has asked this server for something: what waits for it is tried at once. Callers send
	// it at most once in some seconds for each service.
	NoteAlive rpc.Call[NoteAliveRequest, Empty]

	// QueryStatus tells how far the services are, for operators.
	QueryStatus rpc.Call[QueryStatusRequest, QueryStatusResponse]
	// Retry tries at once what waits for a service.
	Retry rpc.Call[RetryRequest, Empty]
	// Skip drops the transaction that a service does not take, or everything that waits for it.
	Skip rpc.Call[SkipRequest, SkipResponse]
}

// QueryAliasRequest names an alias of this server that leads nowhere yet.
type QueryAliasRequest struct {
	Alias id.RoomAlias `json:"alias"`
	// By is the id of the service that asks, if it is one: it is not asked itself.
	By string `json:"by,omitempty"`
}

// AffinityKey has all who ask for an alias ask one replica, which asks the service once.
func (r QueryAliasRequest) AffinityKey() string { return string(r.Alias) }

// QueryUserRequest names a local user who does not exist yet.
type QueryUserRequest struct {
	UserID id.UserID `json:"user_id"`
	// By is the id of the service that asks, if it is one: it is not asked itself.
	By string `json:"by,omitempty"`
}

// AffinityKey has all who ask for a user ask one replica, which asks the service once.
func (r QueryUserRequest) AffinityKey() string { return string(r.UserID) }

// QueryAnswer tells whether a service has made what was asked for.
type QueryAnswer struct {
	Exists bool `json:"exists"`
}

// PingRequest names a service, by the id in its registration.
type PingRequest struct {
	Service       string `json:"service"`
	TransactionID string `json:"transaction_id,omitempty"`
}

// PingResponse tells how long the answer took.
type PingResponse struct {
	DurationMS int64 `json:"duration_ms"`
}

// NoteAliveRequest names a service.
type NoteAliveRequest struct {
	Service string `json:"service"`
}

// QueryStatusRequest names services; none stands for all.
type QueryStatusRequest struct {
	Services []string `json:"services,omitempty"`
}

// QueryStatusResponse has one entry for each service, in the order of the registrations.
type QueryStatusResponse struct {
	Services []Status `json:"services"`
}

// Status is how far a service is. Times are in ms since the epoch; 0: never, or none.
type Status struct {
	Service string `json:"service"`
	URL     string `json:"url,omitempty"`
	// Up tells whether the last request was answered well; Since, since when that is so.
	Up    bool  `json:"up"`
	Since int64 `json:"since,omitempty"`
	// Backlog counts the events that wait, those of the transaction under way included.
	Backlog int64 `json:"backlog"`
	// Oldest is when the oldest event that waits was queued.
	Oldest int64 `json:"oldest,omitempty"`
	// TransactionID is that of the transaction that is under way; Attempts counts how often it was sent.
	TransactionID string `json:"transaction_id,omitempty"`
	Attempts      int64  `json:"attempts,omitempty"`
	// NextAttempt is when it is sent next.
	NextAttempt int64  `json:"next_attempt,omitempty"`
	LastError   string `json:"last_error,omitempty"`
	// LastSuccess is when a transaction was taken last.
	LastSuccess int64 `json:"last_success,omitempty"`
}

// RetryRequest names a service.
type RetryRequest struct {
	Service string `json:"service"`
}

// SkipRequest names a service. All drops everything that waits; else only the transaction under way.
type SkipRequest struct {
	Service string `json:"service"`
	All     bool   `json:"all,omitempty"`
}

// SkipResponse counts the events that were dropped.
type SkipResponse struct {
	Events int64 `json:"events"`
}

// Empty is the response of a call that has nothing to say.
type Empty struct{}
