package encryption

import (
	"maps"
	"slices"
	"testing"

	clientapi "github.com/matrix-org/dendrite/clientapi/api"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/registration"
	"github.com/matrix-org/dendrite/common/test"
)

// Where everything is sent after each change, a service hears exactly who has come, who has gone, and whose keys have changed.
func TestDeviceListsAreExact(t *testing.T) {
	worlds(t, func(t *testing.T, w *world) {
		for range test.Soak(150, 2000) {
			before := make(map[string][]id.UserID)
			for name, b := range w.bridges {
				before[name], b.changed, b.left = w.shared(b), nil, nil
			}
			var touched id.UserID
			if w.pick(4) == 0 {
				touched = w.users[w.pick(len(w.users))]
				w.record(w.s.TakeUser, clientapi.TypeDeviceList, clientapi.OutputDeviceList{UserID: touched})
			} else {
				w.step()
			}
			if w.pick(10) == 0 {
				w.restart()
			}
			w.settle()
			for name, b := range w.bridges {
				var changed, left []id.UserID
				now := w.shared(b)
				for _, user := range now {
					if !slices.Contains(before[name], user) || user == touched {
						changed = append(changed, user)
					}
				}
				for _, user := range before[name] {
					if !slices.Contains(now, user) {
						left = append(left, user)
					}
				}
				slices.Sort(b.changed)
				slices.Sort(b.left)
				if !slices.Equal(b.changed, changed) || !slices.Equal(b.left, left) {
					t.Fatalf("%s was told that %v changed and %v left: it is %v and %v", name, b.changed, b.left, changed, left)
				}
			}
		}
	})
}

// However changes, looks, transactions and crashes follow each other, a service knows in the end who shares a room with it,
// and has heard of each user after the last change of their keys.
func TestDeviceListsConverge(t *testing.T) {
	worlds(t, func(t *testing.T, w *world) {
		for range test.Soak(15, 200) {
			stale := make(map[string]map[id.UserID]bool)
			for name, b := range w.bridges {
				stale[name], b.changed, b.left = make(map[id.UserID]bool), nil, nil
			}
			w.during = func() {
				if w.pick(3) == 0 {
					w.step()
				}
			}
			for range 30 {
				switch w.pick(8) {
				case 0:
					w.must(w.s.lookAll(t.Context()))
				case 1:
					for _, b := range w.bridges {
						b.changed = nil
						w.send(b, w.pick(2) == 0)
						for _, user := range b.changed {
							delete(stale[b.ID], user)
						}
					}
				case 2:
					w.restart()
				case 3:
					user := w.users[w.pick(len(w.users))]
					w.record(w.s.TakeUser, clientapi.TypeDeviceList, clientapi.OutputDeviceList{UserID: user})
					for name := range w.bridges {
						stale[name][user] = true
					}
				default:
					w.step()
				}
			}
			w.during = nil
			for _, b := range w.bridges {
				b.changed = nil
			}
			w.settle()
			for name, b := range w.bridges {
				if known, is := slices.Sorted(maps.Keys(b.knows)), w.shared(b); !slices.Equal(known, is) {
					t.Fatalf("%s knows %v, and shares rooms with %v", name, known, is)
				}
				for _, user := range b.changed {
					delete(stale[name], user)
				}
				for user := range b.knows {
					if stale[name][user] {
						t.Fatalf("%s has not heard that keys of %s have changed", name, user)
					}
				}
			}
		}
	})
}

// A service hears of its own users' keys, and of what they alone see.
func TestOwnKeysAreTold(t *testing.T) {
	worlds(t, func(t *testing.T, w *world) {
		ghost, other := id.UserID("@irc_0:test.example"), id.UserID("@user0:test.example")
		w.record(w.s.TakeUser, clientapi.TypeDeviceList, clientapi.OutputDeviceList{UserID: ghost})
		w.record(w.s.TakeUser, clientapi.TypeSignedUsers,
			clientapi.OutputSignedUsers{UserID: ghost, Signed: []id.UserID{other}},
			clientapi.OutputSignedUsers{UserID: other, Signed: []id.UserID{ghost}})
		w.settle()
		for name, want := range map[string][]id.UserID{"irc": {ghost, other}, "xmpp": nil, "plain": nil} {
			if got := w.bridges[name].changed; !slices.Equal(got, want) {
				t.Errorf("%s was told of %v, not of %v", name, got, want)
			}
		}
	})
}

// A service that begins to encrypt hears of all who share rooms with it; one that ceases to, of nobody; and one that begins
// again, of all again.
func TestServicesBeginAndEndToEncrypt(t *testing.T) {
	worlds(t, func(t *testing.T, w *world) {
		irc, plain := w.bridges["irc"], w.bridges["plain"]
		for _, user := range []id.UserID{"@irc_0:test.example", "@plain_0:test.example", "@user0:test.example", "@far0:far.example"} {
			w.member(w.rooms[0], user, "join")
		}
		w.settle()
		turn := func(irc, plain bool) {
			var all []*registration.Registration
			for _, b := range w.bridges {
				r := *b.Registration
				switch r.ID {
				case "irc":
					r.Encryption = irc
				case "plain":
					r.Encryption = plain
				}
				b.Registration, b.changed, b.left = &r, nil, nil
				all = append(all, &r)
			}
			set, err := registration.NewSet(here, all)
			w.must(err)
			w.held.Replace(set)
			w.must(w.s.follow(t.Context()))
			w.settle()
		}
		turn(false, true)
		if len(irc.changed)+len(irc.left) > 0 || !slices.Equal(plain.changed, w.shared(plain)) || len(plain.changed) != 3 {
			t.Fatalf("irc, which ceased, was told of %v and %v; plain, which began, of %v", irc.changed, irc.left, plain.changed)
		}
		w.member(w.rooms[0], "@user0:test.example", "leave")
		w.settle()
		turn(true, true)
		if !slices.Equal(irc.changed, w.shared(irc)) || len(irc.changed) != 2 || len(irc.left) > 0 || len(plain.changed) > 0 {
			t.Fatalf("irc, which began again, was told of %v and %v; plain of %v", irc.changed, irc.left, plain.changed)
		}
	})
}

// Who leaves a room that the service's users have left, before it was looked at, shares it no more either.
func TestWhoLeavesAfterTheServiceIsNotForgotten(t *testing.T) {
	worlds(t, func(t *testing.T, w *world) {
		irc, room := w.bridges["irc"], w.rooms[0]
		ways := map[id.UserID]string{"@user0:test.example": "leave", "@user1:test.example": "ban", "@user2:test.example": "join"}
		w.member(room, "@irc_0:test.example", "join")
		for user := range ways {
			w.member(room, user, "join")
		}
		w.settle()
		if len(irc.knows) != len(ways) {
			t.Fatalf("irc knows %v", irc.knows)
		}
		w.member(room, "@irc_0:test.example", "leave")
		for user, way := range ways {
			w.member(room, user, way)
		}
		w.settle()
		if len(irc.knows) != 0 {
			t.Errorf("irc, which has left, still knows %v", irc.knows)
		}
	})
}
