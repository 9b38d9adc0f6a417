// Package push delivers notifications to push gateways (Push Gateway API). Every pusher is served by itself: it follows its user's
// rooms as a sync does, from a position that is stored when something was delivered, so that nothing is lost when a process ends and at
// most the last notification is sent again, under the same event id. One replica at a time does it for all.
package push

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/sqlutil"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/syncapi/notify"
	"github.com/matrix-org/dendrite/syncapi/storage"
	"github.com/matrix-org/dendrite/syncapi/stream"
)

// NotifyPath is the path that the URL of every gateway has.
const NotifyPath = "/_matrix/push/v1/notify"

// gatewayRequests is how many requests one gateway gets at a time.
const gatewayRequests = 32

// Service pushes.
type Service struct {
	Storage *storage.Database
	Hub     *stream.Hub
	Room    *roomserver.RoomserverAPI
	Judge   *notify.Judge
	// Client makes the client for requests to gateways, once one is needed.
	Client func() *http.Client
	Log    *logrus.Entry

	mu       sync.Mutex
	gateways map[string]*gateway // by host; those that are asked now
}

// gateway is a push gateway that pushers ask, or wait for.
type gateway struct {
	turns   chan struct{} // of those who ask
	pushers int
}

// Run pushes until ctx ends. No other replica may run it meanwhile.
func (s *Service) Run(ctx context.Context) error {
	running := make(map[storage.PusherKey]*pusher)
	var all sync.WaitGroup
	ctx, cancel := context.WithCancel(ctx)
	defer all.Wait()
	defer cancel()
	again := time.NewTimer(0)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.Hub.PushersChanged():
		case <-again.C:
		}
		var stored []storage.Pusher
		err := s.Storage.Read(ctx, "pushers", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
			stored, err = s.Storage.Pushers(ctx, tx, "")
			return err
		})
		if err != nil {
			if ctx.Err() == nil {
				s.Log.WithError(err).Warn("pushers cannot be read now")
			}
			again.Reset(time.Second)
			continue
		}
		present := make(map[storage.PusherKey]bool, len(stored))
		for i := range stored {
			one := &stored[i]
			present[one.PusherKey] = true
			if old := running[one.PusherKey]; old != nil {
				if old.TS == one.TS && string(old.Content) == string(one.Content) {
					continue
				}
				old.stop()
				<-old.done
				one.Pos = max(one.Pos, old.Pos)
			}
			running[one.PusherKey] = s.start(ctx, &all, *one)
		}
		for key, old := range running {
			if !present[key] {
				old.stop()
				delete(running, key)
			}
		}
	}
}

// pusher is one that runs. Its Pos is what it has looked at.
type pusher struct {
	*Service
	storage.Pusher
	url, host string
	data      map[string]json.RawMessage // without the URL
	stop      context.CancelFunc
	done      chan struct{}

	view   *stream.View // whose rules are compiled
	rules  *notify.Rules
	unread int64 // that the gateway was told last; -1 if nothing yet
}

// Settings are what a client sets.
type Settings struct {
	Kind              string          `json:"kind"`
	AppDisplayName    string          `json:"app_display_name"`
	DeviceDisplayName string          `json:"device_display_name"`
	ProfileTag        string          `json:"profile_tag,omitempty"`
	Lang              string          `json:"lang"`
	Data              json.RawMessage `json:"data"`
}

// Data is the part of a pusher's data that the server reads.
type Data struct {
	URL    string `json:"url"`
	Format string `json:"format"`
}

// CheckURL refuses what is not the URL of a gateway. Errors are M_INVALID_PARAM.
func CheckURL(given string) error {
	u, err := url.Parse(given)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.EscapedPath() != NotifyPath || u.Fragment != "" {
		return mxerr.InvalidParam("data.url must be an https URL with the path %s", NotifyPath)
	}
	return nil
}

func (s *Service) start(ctx context.Context, all *sync.WaitGroup, stored storage.Pusher) *pusher {
	p := &pusher{Service: s, Pusher: stored, done: make(chan struct{}), unread: -1}
	ctx, p.stop = context.WithCancel(ctx)
	all.Go(func() {
		defer close(p.done)
		defer p.stop()
		log := s.Log.WithFields(logrus.Fields{"user": p.UserID, "app_id": p.AppID})
		if err := p.read(); err != nil {
			log.WithError(err).Error("a stored pusher cannot be read")
			return
		}
		for wait := retryFirst; ctx.Err() == nil; wait = min(2*wait, retryLast) {
			began := time.Now()
			err := p.follow(ctx)
			if err == nil {
				return
			}
			if ctx.Err() == nil {
				log.WithError(err).Warn("a pusher cannot go on now")
			}
			if time.Since(began) > retryLast {
				wait = retryFirst
			}
			sleep(ctx, wait)
		}
	})
	return p
}

func (p *pusher) read() error {
	var set Settings
	var data Data
	if err := json.Unmarshal(p.Content, &set); err != nil {
		return err
	}
	if err := errors.Join(json.Unmarshal(set.Data, &p.data), json.Unmarshal(set.Data, &data)); err != nil {
		return err
	}
	u, err := url.Parse(data.URL)
	if err != nil {
		return err
	}
	p.url, p.host = data.URL, u.Host
	delete(p.data, "url")
	return nil
}

// gateway waits until a gateway may be asked. A gateway that is stuck keeps only those waiting who ask it too.
func (s *Service) gateway(ctx context.Context, host string) (leave func(), err error) {
	s.mu.Lock()
	if s.gateways == nil {
		s.gateways = make(map[string]*gateway)
	}
	g := s.gateways[host]
	if g == nil {
		g = &gateway{turns: make(chan struct{}, gatewayRequests)}
		s.gateways[host] = g
	}
	g.pushers++
	s.mu.Unlock()
	select {
	case g.turns <- struct{}{}:
		return func() { <-g.turns; s.left(host, g) }, nil
	case <-ctx.Done():
		s.left(host, g)
		return nil, ctx.Err()
	}
}

// left forgets a gateway that nobody asks any more: users can name any number of them.
func (s *Service) left(host string, g *gateway) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if g.pushers--; g.pushers == 0 {
		delete(s.gateways, host)
	}
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// drop removes a pusher, by its gateway's word.
func (s *Service) drop(ctx context.Context, key storage.PusherKey) error {
	return s.Storage.Write(ctx, "rejected pusher", 1, func(ctx context.Context, tx *sqlutil.Tx, _ int64) (*storage.Changes, error) {
		touched, err := s.Storage.DropPusher(ctx, tx, key)
		return &storage.Changes{Touched: touched}, err
	})
}
