package api

import (
	"context"
	"encoding/json"
	"slices"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"

	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/id"
)

// What a Follower does about messages that were lost, and about replicas of the typingserver that have ended.
const (
	// CheckEvery is how often the typingserver is asked for what was not heard.
	CheckEvery = 15 * time.Second
	// silence is how long nobody needs to answer until nobody is taken to type.
	silence = 45 * time.Second
	// knowsWithin is how long a Follower may take to know who types, from its beginning on. Then nobody waits for it.
	knowsWithin = 3 * time.Second
	// numbersKept is how long the number of a room is kept in which nobody types: messages that come later are newer.
	numbersKept = 10 * time.Minute
)

// FollowerDeps are what a Follower needs. Transport and Log are those of the component.
type FollowerDeps struct {
	Typing    *TypingserverAPI
	Transport eventlog.Transport
	Log       *logrus.Entry
	// Changed is called when other users type in a room than before, with all who do, in order of their ids: one call
	// at a time. It must not call the Follower. It may be nil.
	Changed func(OutputTyping)
}

// Follower knows who types where, as the typingserver tells it. A message that is lost is made good within some
// seconds.
type Follower struct {
	FollowerDeps

	known func()        // closes knows
	knows chan struct{} // closed when everything is heard, and what was before was asked for

	mu       sync.Mutex
	rooms    map[id.RoomID]heard
	answered time.Time // when the typingserver has answered last
}

type heard struct {
	users  []id.UserID
	number int64
	at     time.Time // when it was heard
}

// NewFollower makes a Follower that knows of nobody until Run runs.
func NewFollower(deps FollowerDeps) *Follower {
	if deps.Changed == nil {
		deps.Changed = func(OutputTyping) {}
	}
	f := &Follower{FollowerDeps: deps, rooms: make(map[id.RoomID]heard), answered: time.Now(), knows: make(chan struct{})}
	f.known = sync.OnceFunc(func() { close(f.knows) })
	return f
}

// Wait waits until the Follower has learnt who types, which takes some ms from when it runs: who asks it before that does
// not hear of those who began before it did. It waits for three seconds at most.
func (f *Follower) Wait(ctx context.Context) {
	select {
	case <-f.knows: // no timer where nobody waits
		return
	default:
	}
	select {
	case <-f.knows:
	case <-ctx.Done():
	case <-time.After(knowsWithin):
	}
}

// Types tells whether a user types in a room.
func (f *Follower) Types(room id.RoomID, user id.UserID) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Contains(f.rooms[room].users, user)
}

// Users are those who type in a room. The list is shared: it is only read.
func (f *Follower) Users(room id.RoomID) []id.UserID {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.rooms[room].users
}

// Run follows the typingserver until ctx ends.
func (f *Follower) Run(ctx context.Context) error {
	tooLate := time.AfterFunc(knowsWithin, f.known)
	defer tooLate.Stop()
	group, ctx := errgroup.WithContext(ctx)
	listening := make(chan struct{}, 1)
	group.Go(func() error {
		return f.Transport.Subscribe(ctx, Topic, func(_ string, value []byte) {
			var output OutputTyping
			if err := json.Unmarshal(value, &output); err != nil {
				f.Log.WithError(err).Warn("a message of the typingserver cannot be read")
				return
			}
			f.hear(output)
		}, func() {
			select {
			case listening <- struct{}{}:
			default:
			}
		})
	})
	group.Go(func() error {
		hears := false
		for wait := time.Second; ; wait = min(2*wait, CheckEvery) {
			select {
			case <-ctx.Done():
				return nil
			case <-listening: // what was told before is asked for
				hears = true
			case <-time.After(wait):
			}
			switch err := f.check(ctx); {
			case err == nil && hears:
				f.known()
			case err != nil && ctx.Err() == nil:
				f.Log.WithError(err).Warn("the typingserver cannot be asked now")
			}
		}
	})
	return group.Wait()
}

// hear takes what is newer than what was heard before.
func (f *Follower) hear(outputs ...OutputTyping) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, output := range outputs {
		old := f.rooms[output.RoomID]
		if output.Number <= old.number {
			continue
		}
		f.rooms[output.RoomID] = heard{output.Users, output.Number, time.Now()}
		if !slices.Equal(old.users, output.Users) {
			f.Changed(output)
		}
	}
}

// check asks for what was not heard, and ends what the typingserver does not know of: it was started anew, or the
// message of the end was lost.
func (f *Follower) check(ctx context.Context) error {
	began := time.Now()
	known, err := f.Typing.QueryTyping(ctx, QueryTypingRequest{})
	if err == nil {
		f.hear(known.Rooms...)
		err = f.endUnknown(ctx, known.Rooms)
	}
	switch {
	case ctx.Err() != nil:
	case err == nil:
		f.answered = began
	case time.Since(f.answered) > silence:
		f.endAll()
	}
	return err
}

// endUnknown asks about rooms in which users type of whom the replica that was asked does not know. It may not be the
// one that keeps a room, which is asked for by itself.
func (f *Follower) endUnknown(ctx context.Context, known []OutputTyping) error {
	still := make(map[id.RoomID]bool, len(known))
	for i := range known {
		still[known[i].RoomID] = true
	}
	unknown := make(map[id.RoomID]int64) // with the number of what is known
	f.mu.Lock()
	for name, room := range f.rooms {
		switch ago := time.Since(room.at); {
		case len(room.users) > 0 && !still[name] && ago >= CheckEvery:
			unknown[name] = room.number
		case len(room.users) == 0 && ago >= numbersKept:
			delete(f.rooms, name)
		}
	}
	f.mu.Unlock()
	for name, number := range unknown {
		answer, err := f.Typing.QueryTyping(ctx, QueryTypingRequest{RoomIDs: []id.RoomID{name}})
		if err != nil {
			return err
		}
		if len(answer.Rooms) == 0 {
			answer.Rooms = []OutputTyping{{RoomID: name, Number: number + 1}} // what comes later is newer
		}
		f.hear(answer.Rooms...)
	}
	return nil
}

// endAll ends all typing: there is nobody who would tell its end.
func (f *Follower) endAll() {
	f.mu.Lock()
	var ends []OutputTyping
	for name, room := range f.rooms {
		if len(room.users) > 0 {
			ends = append(ends, OutputTyping{RoomID: name, Number: room.number + 1})
		}
	}
	f.mu.Unlock()
	f.hear(ends...)
}
