package backups

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/matrix-org/dendrite/clientapi/storage"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/common/test"
)

// Whatever is put and deleted in whatever order, a backup has what a map by room and session would have, and counts it.
func TestBlocksAreAMapOfSessions(t *testing.T) {
	each(t, func(t *testing.T, s *Service) {
		chance := rand.New(rand.NewPCG(test.Seed(t), 1))
		version, model := s.create(t), make(map[id.RoomID]map[string]Session)
		rooms := []id.RoomID{"!a:test", "!B:test", "!\"c\\:test", "!ü:test"}
		session := func() string { return []string{"s", `"`, "ü\\", "<"}[chance.IntN(4)] + fmt.Sprint(chance.IntN(60)) }
		for range test.Soak(60, 3000) {
			at := rooms[chance.IntN(len(rooms))]
			switch n := chance.IntN(20); {
			case n == 0:
				if _, err := s.DeleteRoomKeys(t.Context(), alice, version, at); err != nil {
					t.Fatal(err)
				}
				delete(model, at)
			case n < 6:
				one := session()
				if _, err := s.DeleteKey(t.Context(), alice, version, at, one); err != nil {
					t.Fatal(err)
				}
				delete(model[at], one)
			default:
				some := make(map[id.RoomID]map[string]Session)
				var keys []Session
				for range 1 + chance.IntN(40) {
					k := key(session(), chance.IntN(2) == 0, chance.Int64N(3), chance.Int64N(3))
					k.RoomID = rooms[chance.IntN(len(rooms))]
					k.SessionData = json.RawMessage(`{"a":"` + strings.Repeat("x", chance.IntN(3000)) + `"}`)
					if _, twice := some[k.RoomID][k.SessionID]; twice {
						continue
					}
					keys = append(keys, k)
					put(some, k)
				}
				s.put(t, version, keys...)
				for _, k := range keys {
					if old, has := model[k.RoomID][k.SessionID]; !has || better(k, old) {
						put(model, k)
					}
				}
			}
			s.is(t, version, model)
		}
	})
}

func put(in map[id.RoomID]map[string]Session, k Session) {
	if in[k.RoomID] == nil {
		in[k.RoomID] = make(map[string]Session)
	}
	in[k.RoomID][k.SessionID] = k
}

// is compares all keys of a backup, those of each room, one of them, the count, and the bytes.
func (s *Service) is(t *testing.T, version string, model map[id.RoomID]map[string]Session) {
	t.Helper()
	var all struct {
		Rooms map[id.RoomID]struct {
			Sessions map[string]json.RawMessage `json:"sessions"`
		} `json:"rooms"`
	}
	if err := json.Unmarshal(s.text(t, version, ""), &all); err != nil {
		t.Fatal(err)
	}
	var sessions, bytes int64
	for room, want := range model {
		got := all.Rooms[room].Sessions
		var in struct {
			Sessions map[string]json.RawMessage `json:"sessions"`
		}
		if err := json.Unmarshal(s.text(t, version, room), &in); err != nil || len(got) != len(want) ||
			len(in.Sessions) != len(want) {
			t.Fatalf("%s has %d and %d sessions, want %d: %v", room, len(got), len(in.Sessions), len(want), err)
		}
		checked := false
		for session, k := range want {
			text := string(k.appendMember(nil)[len(jsonText(session))+1:])
			if string(got[session]) != text || string(in.Sessions[session]) != text {
				t.Fatalf("%q of %s: %s, want %s", session, room, got[session], text)
			}
			sessions, bytes = sessions+1, bytes+int64(len(k.SessionData))
			if !checked {
				checked = true
				if one, err := s.Key(t.Context(), alice, version, room, session); err != nil || string(one) != text {
					t.Fatalf("%q of %s alone: %s, want %s, %v", session, room, one, text, err)
				}
			}
		}
		if _, err := s.Key(t.Context(), alice, version, room, "none"); !mxerr.Is(err, "M_NOT_FOUND") {
			t.Fatal(err)
		}
	}
	if n, size := s.total(t); n != sessions || size != bytes {
		t.Fatalf("%d sessions of %d bytes are counted, want %d of %d", n, size, sessions, bytes)
	}
}

func jsonText(session string) []byte {
	k := Session{SessionID: session}
	text := k.appendMember(nil)
	return text[:strings.Index(string(text), `:{"first`)]
}

func (s *Service) text(t *testing.T, version string, of id.RoomID) (text []byte) {
	t.Helper()
	pages, err := s.Keys(t.Context(), alice, version, of)
	for err == nil && !pages.at.over {
		text, err = pages.Next(t.Context(), text)
	}
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// Writers who put keys of the same sessions at once leave the best of each, and the count is right.
func TestWritersOfOneBackupRace(t *testing.T) {
	each(t, func(t *testing.T, s *Service) {
		version, seed := s.create(t), test.Seed(t)
		model := make(map[id.RoomID]map[string]Session)
		var mu sync.Mutex
		var group sync.WaitGroup
		for w := range 4 {
			chance := rand.New(rand.NewPCG(seed, uint64(w)))
			group.Go(func() {
				for range 20 {
					var keys []Session
					for n := range 20 {
						k := key(fmt.Sprint(n), chance.IntN(2) == 0, chance.Int64N(1000), int64(w))
						k.RoomID = id.RoomID(fmt.Sprintf("!%d:test", n%3))
						keys = append(keys, k)
					}
					if _, err := s.Put(t.Context(), alice, version, keys); err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					for _, k := range keys {
						if old, has := model[k.RoomID][k.SessionID]; !has || better(k, old) {
							put(model, k)
						}
					}
					mu.Unlock()
				}
			})
		}
		group.Wait()
		s.is(t, version, model)
	})
}

// A writer whose keys were read before another has changed them begins anew, whether the database locks rows or not.
func TestAChangeOfWhatOthersHaveChangedIsNotMade(t *testing.T) {
	each(t, func(t *testing.T, s *Service) {
		version := s.create(t)
		s.put(t, version, key("a", false, 1, 0))
		b, err := s.Latest(t.Context(), alice)
		if err != nil {
			t.Fatal(err)
		}
		s.put(t, version, key("a", true, 1, 0))
		err = s.store.DB.Write(t.Context(), "stale", func(ctx context.Context, tx *sqlutil.Tx) error {
			return s.move(ctx, tx, alice, b, change{true, 1, 1})
		})
		if !errors.Is(err, errRaced) {
			t.Errorf("a change of what is not there any more: %v", err)
		}
		err = s.store.DB.Write(t.Context(), "stale", func(ctx context.Context, tx *sqlutil.Tx) error {
			done, err := s.store.PutBackupBlocks(ctx, tx, b.NID, []storage.BackupBlock{{RoomID: room, Number: 1,
				Ranks: []byte{}, Sessions: []byte{}}})
			if err == nil && done {
				t.Error("a block was put in place of another")
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
		tries := 0
		err = s.write(t.Context(), "raced", func(context.Context, *sqlutil.Tx) error {
			if tries++; tries < 3 {
				return errRaced
			}
			return nil
		})
		if err != nil || tries != 3 {
			t.Errorf("%d tries: %v", tries, err)
		}
	})
}
