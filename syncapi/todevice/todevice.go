// Package todevice keeps messages to devices until these have acknowledged them (Client-Server API, § Send-to-Device
// messaging). What is sent with one request key arrives once, on whatever replicas the request and its repetitions
// arrive. Messages to a device come in the order in which they were sent, and none is removed before the device has
// said that it has it, or is deleted.
package todevice

import (
	"context"
	"hash/maphash"
	"sync"

	"github.com/sirupsen/logrus"

	clientapi "github.com/matrix-org/dendrite/clientapi/api"
	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/registration"
	"github.com/matrix-org/dendrite/syncapi/storage"
	"github.com/matrix-org/dendrite/syncapi/stream"
)

// MaxInbox is about how many messages a device keeps: beyond, the oldest go. A client that lives has fetched them long
// before.
const MaxInbox = 1_000_000

// Deps are what a Service uses.
type Deps struct {
	Storage    *storage.Database
	Client     *clientapi.ClientAPI
	Hub        *stream.Hub
	Output     *eventlog.Topic // of what other servers and application services must hear
	ServerName id.ServerName
	// Registrations tell whose users get messages in transactions too.
	Registrations *registration.Holder
	// Barrier waits until what clientapi had committed is known here, and fails where that takes too long.
	Barrier func(ctx context.Context) error
	Log     *logrus.Entry
}

// Service sends, shows and removes messages.
type Service struct {
	Deps
	seed maphash.Seed

	mu      sync.Mutex
	waiting map[inbox]int64 // positions up to which inboxes are to be emptied
	trims   map[inbox]struct{}
	work    chan struct{} // gets something when there is any of these
	gone    chan struct{} // gets something when devices are deleted
}

// inbox says whose messages are meant.
type inbox struct {
	user   id.UserID
	device id.DeviceID
}

// New makes a Service.
func New(deps Deps) *Service {
	return &Service{Deps: deps, seed: maphash.MakeSeed(), waiting: make(map[inbox]int64), trims: make(map[inbox]struct{}),
		work: make(chan struct{}, 1), gone: make(chan struct{}, 1)}
}
