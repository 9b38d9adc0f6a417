// Package keys has what clients publish for end-to-end encryption (Client-Server API, § End-to-End Encryption):
// identity keys of devices, one-time and fallback keys, cross-signing keys, and the signatures between them. It
// knows neither HTTP nor SQL.
//
// What it promises: identity keys of a device never change; a one-time key is given once, whoever asks and however
// often; signatures on identity keys and cross-signing keys were checked; and what others must know is told on the
// user log, in the transaction that changes it, and only if something has changed.
package keys

import (
	"time"

	"github.com/matrix-org/dendrite/clientapi/storage"
	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/lru"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// What a device, a user and a request may have.
const (
	MaxKeyID      = 255  // bytes of an algorithm with its key id
	MaxOneTimeKey = 8192 // bytes of JSON
	// MaxOneTimeKeys are those that a device has of an algorithm and that were not claimed; one upload may have as many.
	MaxOneTimeKeys = 500
	// MaxGiven is how many ids of keys that were claimed are remembered of a device for each algorithm, with those of keys
	// that were uploaded together with them: as many as an upload has that is repeated because its answer was lost.
	MaxGiven          = MaxOneTimeKeys
	MaxKeyAlgorithms  = 10    // with one-time or fallback keys of a device
	MaxIdentity       = 16384 // bytes of the JSON of a device's keys, or of a cross-signing key
	MaxIdentityKeys   = 20    // of a device
	MaxQueryUsers     = 5000  // of one query
	MaxQueryDevices   = 20000 // of one query that names devices
	MaxClaimDevices   = 5000  // of one claim
	MaxSignedKeys     = 1000  // of one upload of signatures
	MaxKeySignatures  = 20    // on a key of one upload, by its uploader
	DefaultTimeout    = 10 * time.Second
	MaxTimeout        = time.Minute
	claimsRememberFor = 10 * time.Minute
)

// Deps are what a Service is made of.
type Deps struct {
	Store  *storage.Store
	Users  *eventlog.Topic
	Server id.ServerName
	// Elsewhere answers for users of other servers; nil: nobody does.
	Elsewhere Elsewhere
	Now       func() time.Time
}

// Service has the keys of this server's users.
type Service struct {
	Deps
	published *lru.Cache[id.UserID, *published]
}

// New makes a Service.
func New(d Deps) *Service { return &Service{d, newPublished()} }

func (s *Service) db() *sqlutil.DB { return s.Store.DB }
