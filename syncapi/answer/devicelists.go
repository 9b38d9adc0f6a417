package answer

import (
	"context"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/syncapi/devicelists"
	"github.com/matrix-org/dendrite/syncapi/storage"
	"github.com/matrix-org/dendrite/syncapi/stream"
)

// loadDeviceLists finds whose keys the client must fetch anew, and whose it need not follow any more. A client that
// begins asks for all keys that it needs.
func (a *answering) loadDeviceLists(ctx context.Context) error {
	if a.initial() || a.OnlyRooms {
		return nil
	}
	s := devicelists.Span{Since: a.since.Pos, UpTo: a.next.Pos}
	candidates, known, err := a.candidatesInMemory(ctx, s)
	if err == nil && !known {
		candidates, err = a.Storage.DeviceLists(ctx, a.UserID, s, s.UpTo)
	}
	if err != nil {
		return err
	}
	a.lists = devicelists.Of(candidates)
	return nil
}

// candidatesInMemory are those whom the Hub knows, where it knows all.
func (a *answering) candidatesInMemory(ctx context.Context, s devicelists.Span) ([]devicelists.Candidate, bool, error) {
	moved := &a.window.Moved
	if !moved.Known || len(moved.Updated)+len(moved.Members) == 0 {
		return nil, moved.Known, nil
	}
	people, err := a.Hub.People(ctx, moved.Members)
	if err != nil || people == nil {
		return nil, false, err
	}
	candidates := make([]devicelists.Candidate, 0, len(people)+len(moved.Updated))
	for user, person := range people {
		c := person.Compare(user, s, joinedIn(a.window.View))
		_, updated := moved.Updated[user]
		c.Updated = c.Updated || updated
		candidates = append(candidates, c)
	}
	for user := range moved.Updated {
		if people[user] == nil { // they are seen all the time: neither they nor this user have come or gone
			candidates = append(candidates, devicelists.Candidate{UserID: user, Updated: true, Then: true, Now: true})
		}
	}
	return candidates, true, nil
}

func joinedIn(v *stream.View) func(id.RoomID, int64) bool {
	return func(room id.RoomID, pos int64) bool {
		m := v.MembershipAt(room, pos)
		return m != nil && m.Membership == join
	}
}

// KeysChanged tells what changed between two tokens (§ GET /keys/changes). Where one is newer than what is known, the
// time ends now; where they are the wrong way round, it ends where it begins. Whose keys have changed after it as well
// is among the changed: when they did before is not known any more.
func (e *Engine) KeysChanged(ctx context.Context, user id.UserID, from, to Token) (devicelists.Lists, error) {
	e.Barrier(ctx)
	now := e.Hub.Position()
	s := devicelists.Span{Since: min(from.Pos, now)}
	s.UpTo = max(s.Since, min(to.Pos, now))
	candidates, err := e.Storage.DeviceLists(ctx, user, s, storage.AllUpdates)
	return devicelists.Of(candidates), err
}

func (a *answering) hasDeviceLists() bool { return !a.lists.Empty() }

func (a *answering) writeDeviceLists(o *out) {
	o.key("device_lists")
	o.raw(`{`)
	o.list("changed", len(a.lists.Changed), func(i int) { o.text(string(a.lists.Changed[i])) })
	o.list("left", len(a.lists.Left), func(i int) { o.text(string(a.lists.Left[i])) })
	o.raw(`}`)
}
