// Package answer makes the answers of /sync (Client-Server API, § Syncing): what is new for a user since a token, or everything
// without one.
//
// An Engine first plans which rooms an answer has, from what the stream's Hub knows in memory; then it loads what the Hub does
// not know, in one transaction with a handful of statements, however many rooms there are; then it gets the events and writes
// the answer. A sync that finds nothing new gets as far as the plan and costs no statement.
package answer

import (
	"context"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/id"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/syncapi/devicelists"
	"github.com/matrix-org/dendrite/syncapi/events"
	"github.com/matrix-org/dendrite/syncapi/filter"
	"github.com/matrix-org/dendrite/syncapi/presence"
	"github.com/matrix-org/dendrite/syncapi/storage"
	"github.com/matrix-org/dendrite/syncapi/stream"
	"github.com/matrix-org/dendrite/syncapi/todevice"
)

// MaxTimeout is the longest that a sync waits for something new.
const MaxTimeout = time.Minute

// Request is a sync.
type Request struct {
	UserID     id.UserID
	DeviceID   id.DeviceID
	Guest      bool
	Since      *Token // nil: the initial sync
	Timeout    time.Duration
	Filter     *filter.Filter
	FullState  bool
	StateAfter bool                  // state_after instead of state
	Presence   presence.State        // what the client makes of its user
	OnlyRooms  bool                  // the answer has nothing of keys, nor of messages to the device
	Lend       func(size int) []byte // gives room for the answer
}

// Engine makes answers.
type Engine struct {
	Room    *roomserver.RoomserverAPI
	Storage *storage.Database
	Hub     *stream.Hub
	Events  *events.Cache
	// ToDevice keeps messages to devices.
	ToDevice *todevice.Service
	// Barrier waits until what the roomserver had committed when a request began can be seen here.
	Barrier func(ctx context.Context)
	// Draining is closed when the process is about to end.
	Draining <-chan struct{}
	Log      *logrus.Entry

	lazy lazyMembers
}

// Sync answers as soon as there is something new, or when the time is over.
func (e *Engine) Sync(ctx context.Context, req *Request) (httputil.Raw, error) {
	return e.answer(ctx, req, func(a *answering) ([]byte, error) { return a.write(), nil })
}

// answer waits for something new, and writes it.
func (e *Engine) answer(ctx context.Context, req *Request, write func(*answering) ([]byte, error)) (httputil.Raw, error) {
	e.Barrier(ctx)
	e.Hub.WaitForTyping(ctx)
	deadline := time.NewTimer(min(req.Timeout, MaxTimeout))
	defer deadline.Stop()
	sleeper, err := e.Hub.Sleep(req.UserID, req.DeviceID)
	if err != nil {
		return httputil.Raw{}, err
	}
	defer e.Hub.Leave(req.UserID, sleeper)
	defer e.Hub.Online(req.UserID, req.DeviceID, req.Presence)()
	var since Token
	if req.Since != nil {
		since = *req.Since
	}
	since.bind(req.UserID, req.DeviceID)
	if since.ToDevice > e.Hub.Position() {
		since.ToDevice = 0 // of a database that was restored: its messages are not those that are here
	}
	if req.takesMessages() {
		e.ToDevice.Acknowledge(req.UserID, req.DeviceID, since.ToDevice)
	}
	waits := req.Since != nil && req.Timeout > 0 && !req.FullState
	for {
		window, err := e.Hub.LookAs(ctx, req.UserID, req.DeviceID, since.Pos, since.Ephemeral)
		if err != nil {
			return httputil.Raw{}, err
		}
		a := &answering{Engine: e, Request: req, since: since, window: window, rooms: make(map[id.RoomID]*room)}
		// A token from the future is one of a database that was restored: what it has seen is not to be known.
		a.next = since
		a.next.Pos, a.next.Ephemeral = max(window.UpTo, since.Pos), window.Number
		if err := a.collect(ctx); err != nil {
			return httputil.Raw{}, err
		}
		if !waits || !a.empty() {
			a.remember()
			body, err := write(a)
			return httputil.Raw{Body: body}, err
		}
		since = a.next
		if waits, err = e.woken(ctx, sleeper.C, deadline.C); err != nil {
			return httputil.Raw{}, err
		}
		if !waits {
			body, err := write(a)
			return httputil.Raw{Body: body}, err
		}
	}
}

// woken waits until there may be something new. It returns false where it is time to answer all the same.
func (e *Engine) woken(ctx context.Context, sleeper <-chan struct{}, deadline <-chan time.Time) (bool, error) {
	select {
	case <-sleeper:
		return true, nil
	case <-deadline:
	case <-e.Draining:
	case <-ctx.Done():
		return false, ctx.Err()
	}
	return false, nil
}

// answering is one attempt at an answer.
type answering struct {
	*Engine
	*Request
	since, next Token
	window      *stream.Window

	rooms       map[id.RoomID]*room
	planned     int                   // of them, before account data added some
	accountData []storage.AccountData // global
	presence    []stream.Presence
	unread      []storage.Unread // as it was read
	lists       devicelists.Lists
	messages    []storage.ToDevice
}

// initial tells whether the client has seen nothing yet.
func (a *answering) initial() bool { return a.Since == nil }

func (a *answering) collect(ctx context.Context) error {
	a.plan()
	if err := a.dropForgotten(ctx); err != nil {
		return err
	}
	if err := a.loadToDevice(ctx); err != nil {
		return err
	}
	if err := a.loadDeviceLists(ctx); err != nil {
		return err
	}
	if err := a.load(ctx); err != nil {
		return err
	}
	if err := a.fetchTimelines(ctx); err != nil {
		return err
	}
	if err := a.eachRoom(ctx, a.mayBeStale, a.cutStale); err != nil {
		return err
	}
	if err := a.aggregate(ctx); err != nil {
		return err
	}
	return a.fetchStates(ctx)
}

func (a *answering) viewer() roomserver.Viewer {
	return roomserver.Viewer{UserID: a.UserID, DeviceID: a.DeviceID, Guest: a.Guest}
}
