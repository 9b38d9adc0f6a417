// Package registration reads the registrations of application services and tells which users, aliases and rooms are
// theirs (Application Service API, § Registration).
//
// Every process reads them at its start. A Holder has those that are in force; it may read them again while the server
// runs. A Set never changes: who needs one answer to several questions loads it once.
package registration

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/matrix-org/dendrite/common/id"
)

// Registration is what one file says. It does not change.
type Registration struct {
	ID string
	// URL is where the service is, without a slash at the end; empty if it wants no requests.
	URL     string
	ASToken string
	HSToken string
	// Sender is the service's own user.
	Sender id.UserID
	// RateLimited says whether requests of its users are limited; its sender never is.
	RateLimited bool
	// Protocols are the third-party networks that it answers questions about.
	Protocols []string
	// Ephemeral says whether it wants typing, receipts and presence.
	Ephemeral bool
	// Encryption says whether it wants messages to devices, device lists and key counts in its transactions (MSC3202).
	Encryption bool
	// DeviceManagement says whether it makes devices by PUT /devices (MSC4190).
	DeviceManagement bool
	// LegacyToken says that it wants its token in the query too, as specifications before 1.4 had it.
	LegacyToken bool

	Users   []Namespace
	Aliases []Namespace
	Rooms   []Namespace

	// File is where it was read from.
	File string
}

// WantsEphemeral tells whether the service gets typing, receipts and presence in its transactions.
func (r *Registration) WantsEphemeral() bool { return r.URL != "" && r.Ephemeral }

// Encrypts tells whether the service gets what encryption needs in its transactions: messages to devices, device lists and
// counts of keys (MSC3202, MSC4203).
func (r *Registration) Encrypts() bool { return r.URL != "" && r.Encryption }

// Namespace is a set of ids.
type Namespace struct {
	// Regex is matched from the start of an id; it need not reach the end.
	Regex     string `json:"regex"`
	Exclusive bool   `json:"exclusive"`
}

// Hash changes when what the service is interested in changes.
func (r *Registration) Hash() string {
	// A struct of strings and bools can be marshalled.
	text, err := json.Marshal([]any{r.Sender, r.Users, r.Aliases, r.Rooms})
	if err != nil {
		panic(fmt.Sprintf("namespaces of %s: %v", r.ID, err))
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}
