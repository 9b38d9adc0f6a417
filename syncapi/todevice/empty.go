package todevice

import (
	"cmp"
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/periodic"
	"github.com/matrix-org/dendrite/syncapi/storage"
)

const (
	together   = 64     // inboxes that one transaction empties
	maxWaiting = 50_000 // inboxes that wait: what is beyond is asked for again by the next sync
	// trimEach is for how many messages it is looked once, on average, whether an inbox is beyond its bound.
	trimEach = 10_000

	// tidyEach is how often it is looked for what nobody has told of, and for what is old.
	tidyEach = 10 * time.Minute
	// keepTxns is how long a transaction of a sender is remembered, which is how long a request can be repeated.
	keepTxns = 3 * 24 * time.Hour
	// keepGone is how long a deleted device is remembered. No request takes as long.
	keepGone = 24 * time.Hour
	tidyMost = 1000 // rows that one statement removes
)

// Acknowledge has removed what a device says that it has: its messages up to a position. It waits for nothing, and does
// nothing where no message can be.
func (s *Service) Acknowledge(user id.UserID, device id.DeviceID, upTo int64) {
	upTo = min(upTo, s.Hub.Position()) // what comes later is not what it has
	if upTo > 0 && s.Hub.MayHold(user, device, upTo) {
		s.empty(inbox{user, device}, upTo)
	}
}

func (s *Service) empty(in inbox, upTo int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if before, has := s.waiting[in]; upTo > before && (has || len(s.waiting) < maxWaiting) {
		s.waiting[in] = upTo
		nudge(s.work)
	}
}

// Gone says that devices were deleted.
func (s *Service) Gone() { nudge(s.gone) }

func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// trimSome looks after some of the inboxes that messages have come to.
func (s *Service) trimSome(rows []storage.ToDevice) {
	if len(rows) == 0 || rand.N(trimEach) >= len(rows) {
		return
	}
	one := &rows[rand.N(len(rows))]
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trims[inbox{one.UserID, one.DeviceID}] = struct{}{}
	nudge(s.work)
}

// Run removes messages until ctx ends: what is acknowledged, what deleted devices have, and what is beyond the bounds.
func (s *Service) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-s.work:
				s.note(ctx, s.emptyWaiting(ctx), "messages that were acknowledged cannot be removed now")
			}
		}
	})
	group.Go(func() error {
		nudge(s.gone) // what was not done when the process ended
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-s.gone:
				s.note(ctx, s.emptyGone(ctx), "messages to deleted devices cannot be removed now")
			}
		}
	})
	group.Go(func() error {
		periodic.Run(ctx, tidyEach, s.Log, "what is old of messages to devices cannot be removed now", s.tidy)
		return nil
	})
	return group.Wait()
}

func (s *Service) note(ctx context.Context, err error, what string) {
	if err != nil && ctx.Err() == nil {
		s.Log.WithError(err).Warn(what)
	}
}

// emptyWaiting empties what waits. What fails is asked for again by the next sync of the device.
func (s *Service) emptyWaiting(ctx context.Context) error {
	if err := s.trim(ctx); err != nil {
		return err
	}
	for {
		s.mu.Lock()
		waiting := s.waiting
		s.waiting = make(map[inbox]int64)
		s.mu.Unlock()
		if len(waiting) == 0 {
			return nil
		}
		inboxes := make([]storage.Inbox, 0, len(waiting))
		for in, pos := range waiting {
			inboxes = append(inboxes, storage.Inbox{UserID: in.user, DeviceID: in.device, Pos: pos})
		}
		if err := s.emptyAll(ctx, inboxes); err != nil {
			return err
		}
	}
}

// emptyAll empties inboxes, each to its end, some messages at a time, so that nobody waits for it. Replicas that empty
// the same do so in the same order.
func (s *Service) emptyAll(ctx context.Context, inboxes []storage.Inbox) (err error) {
	slices.SortFunc(inboxes, func(a, b storage.Inbox) int {
		return cmp.Or(cmp.Compare(a.UserID, b.UserID), cmp.Compare(a.DeviceID, b.DeviceID))
	})
	for some := range slices.Chunk(inboxes, together) {
		for more := some; len(more) > 0; {
			if more, err = s.Storage.EmptyInboxes(ctx, more); err != nil {
				return err
			}
		}
		for _, in := range some {
			s.Hub.Emptied(in.UserID, in.DeviceID, in.Pos)
		}
	}
	return nil
}

func (s *Service) trim(ctx context.Context) error {
	s.mu.Lock()
	trims := slices.Collect(maps.Keys(s.trims))
	clear(s.trims)
	s.mu.Unlock()
	for _, in := range trims {
		pos, err := s.Storage.InboxBeyond(ctx, in.user, in.device, MaxInbox)
		if err != nil {
			return err
		}
		if pos > 0 {
			s.Log.WithField("user", in.user).WithField("device", in.device).
				Warn("a device does not fetch its messages: the oldest are removed")
			s.empty(in, pos)
		}
	}
	return nil
}

// emptyGone removes the messages of deleted devices.
func (s *Service) emptyGone(ctx context.Context) error {
	for {
		gone, err := s.Storage.GoneInboxes(ctx, together)
		if err != nil || len(gone) == 0 {
			return err
		}
		var inboxes []storage.Inbox
		for _, in := range gone {
			if in.DeviceID != "" {
				inboxes = append(inboxes, in)
				continue
			}
			all, err := s.Storage.InboxesOf(ctx, in.UserID, in.Pos)
			if err != nil {
				return err
			}
			inboxes = append(inboxes, all...)
		}
		if err := s.emptyAll(ctx, inboxes); err != nil {
			return err
		}
		if err := s.Storage.GoneEmptied(ctx, gone); err != nil {
			return err
		}
	}
}

// tidy removes what is old, and what other replicas have left.
func (s *Service) tidy(ctx context.Context) error {
	s.Gone()
	if err := s.Storage.PruneGone(ctx, s.Hub.Position()-keepGone.Microseconds()); err != nil {
		return err
	}
	for {
		n, err := s.Storage.PruneToDeviceTxns(ctx, time.Now().Add(-keepTxns).UnixMilli(), tidyMost)
		if err != nil || n < tidyMost {
			return err
		}
	}
}
