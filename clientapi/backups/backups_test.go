package backups

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/matrix-org/dendrite/clientapi/storage"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/common/test"
)

const (
	alice id.UserID = "@alice:test"
	room  id.RoomID = "!room:test"
)

// each runs a test on both databases.
func each(t *testing.T, body func(t *testing.T, s *Service)) {
	on := func(connection func(t *testing.T) string) func(t *testing.T) {
		return func(t *testing.T) {
			db, err := sqlutil.Open(t.Context(), sqlutil.Options{ConnectionString: connection(t)}, sqlutil.Deps{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := db.Close(); err != nil {
					t.Error(err)
				}
			})
			store, err := storage.Open(t.Context(), db)
			if err != nil {
				t.Fatal(err)
			}
			err = db.Write(t.Context(), "account", func(ctx context.Context, tx *sqlutil.Tx) error {
				_, err := store.InsertAccount(ctx, tx, storage.Account{UserID: alice})
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			body(t, New(store))
		}
	}
	t.Run("sqlite", on(func(t *testing.T) string { return "file:" + filepath.Join(t.TempDir(), "test.db") }))
	t.Run("postgres", on(func(t *testing.T) string { return test.Postgres(t) }))
}

func (s *Service) create(t *testing.T) string {
	t.Helper()
	version, err := s.Create(t.Context(), alice, "m.x", json.RawMessage(`{}`))
	if err != nil {
		t.Fatal(err)
	}
	return version
}

func (s *Service) put(t *testing.T, version string, keys ...Session) State {
	t.Helper()
	state, err := s.Put(t.Context(), alice, version, keys)
	if err != nil {
		t.Fatal(err)
	}
	return state
}

func key(session string, verified bool, index, forwarded int64) Session {
	return Session{RoomID: room, SessionID: session, IsVerified: verified, FirstMessageIndex: index,
		ForwardedCount: forwarded, SessionData: json.RawMessage(fmt.Sprintf(`{"of":"%t %d %d"}`, verified, index, forwarded))}
}

// better is the rule as the specification tells it (Client-Server API, § Backup algorithm).
func better(a, b Session) bool {
	if a.IsVerified != b.IsVerified {
		return a.IsVerified
	}
	if a.FirstMessageIndex != b.FirstMessageIndex {
		return a.FirstMessageIndex < b.FirstMessageIndex
	}
	return a.ForwardedCount < b.ForwardedCount
}

func TestOfTwoKeysTheBetterOneStays(t *testing.T) {
	each(t, func(t *testing.T, s *Service) {
		version := s.create(t)
		var kinds []Session
		for _, verified := range []bool{false, true} {
			for _, index := range []int64{0, 1, 1 << 32, 1<<53 - 1} {
				for _, forwarded := range []int64{0, 1, 9} {
					kinds = append(kinds, key("", verified, index, forwarded))
				}
			}
		}
		var sessions int64
		for i, first := range kinds {
			for j, second := range kinds {
				first.SessionID = fmt.Sprintf("%d-%d", i, j)
				second.SessionID = first.SessionID
				sessions++
				before := s.put(t, version, first)
				after := s.put(t, version, second)
				want, changed := first, better(second, first)
				if changed {
					want = second
				}
				text := want.appendMember(nil)[len(want.SessionID)+len(`"":`):]
				got, err := s.Key(t.Context(), alice, version, room, first.SessionID)
				if err != nil || string(got) != string(text) {
					t.Errorf("%s after %s: %s %v", second.SessionData, first.SessionData, got, err)
				}
				if (before.ETag != after.ETag) != changed || before.Sessions != sessions || after.Sessions != sessions {
					t.Errorf("%s after %s: %+v became %+v", second.SessionData, first.SessionData, before, after)
				}
			}
		}
	})
}

func (s *Service) total(t *testing.T) (sessions, bytes int64) {
	t.Helper()
	sum := s.store.DB.Stmt(`SELECT COALESCE(SUM(sessions), 0)::bigint, COALESCE(SUM(bytes), 0)::bigint
		FROM clientapi_backups WHERE user_id = $1`)
	err := s.store.DB.Read(t.Context(), "total", func(ctx context.Context, tx *sqlutil.Tx) error {
		return sum.QueryRow(ctx, tx, alice).Scan(&sessions, &bytes)
	})
	if err != nil {
		t.Fatal(err)
	}
	return sessions, bytes
}

func TestBytesAreCountedAsTheyAre(t *testing.T) {
	each(t, func(t *testing.T, s *Service) {
		version := s.create(t)
		many := make([]Session, 100)
		for i := range many {
			many[i] = key(fmt.Sprint(i), false, 5, 0)
			many[i].SessionData = json.RawMessage(`{"a":"ü` + strings.Repeat("x", i) + `"}`)
		}
		want := func() (bytes int64) {
			for _, k := range many {
				bytes += int64(len(k.SessionData))
			}
			return bytes
		}
		s.put(t, version, many...)
		if sessions, bytes := s.total(t); sessions != 100 || bytes != want() {
			t.Errorf("%d sessions of %d bytes, want %d", sessions, bytes, want())
		}
		many[99].SessionData, many[99].IsVerified = json.RawMessage(`{}`), true
		many[0].SessionData, many[0].FirstMessageIndex = json.RawMessage(`{"long":"`+strings.Repeat("y", 1000)+`"}`), 1
		s.put(t, version, many...)
		if sessions, bytes := s.total(t); sessions != 100 || bytes != want() {
			t.Errorf("%d sessions of %d bytes, want %d", sessions, bytes, want())
		}
		if _, err := s.DeleteKey(t.Context(), alice, version, many[0].RoomID, many[0].SessionID); err != nil {
			t.Fatal(err)
		}
		many = many[1:]
		if sessions, bytes := s.total(t); sessions != 99 || bytes != want() {
			t.Errorf("%d sessions of %d bytes, want %d", sessions, bytes, want())
		}
		if state, err := s.DeleteRoomKeys(t.Context(), alice, version, many[0].RoomID); err != nil || state.Sessions != 0 {
			t.Fatal(state, err)
		}
		if sessions, bytes := s.total(t); sessions != 0 || bytes != 0 {
			t.Errorf("%d sessions of %d bytes are left", sessions, bytes)
		}
	})
}

// keptBlocks counts rows, whether a backup has them or not.
func (s *Service) keptBlocks(t *testing.T) (n int) {
	t.Helper()
	count := s.store.DB.Stmt(`SELECT COUNT(*) FROM clientapi_backup_blocks`)
	err := s.store.DB.Read(t.Context(), "count", func(ctx context.Context, tx *sqlutil.Tx) error {
		return count.QueryRow(ctx, tx).Scan(&n)
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestKeysThatNoBackupHasAreSwept(t *testing.T) {
	each(t, func(t *testing.T, s *Service) {
		old, kept := s.create(t), ""
		fill := func(version string, n int) {
			keys := make([]Session, n)
			for i := range keys {
				keys[i] = key(fmt.Sprint(i), true, 0, 0)
				keys[i].RoomID = id.RoomID(fmt.Sprintf("!%d:test", i))
			}
			s.put(t, version, keys...)
		}
		fill(old, sweepAtOnce*2+10)
		middle := s.create(t)
		fill(middle, sweepAtOnce)
		kept = s.create(t)
		fill(kept, 20)
		if err := s.Delete(t.Context(), alice, old); err != nil {
			t.Fatal(err)
		}
		if state, err := s.DeleteKeys(t.Context(), alice, middle); err != nil || state != (State{"2", 0}) {
			t.Fatal(state, err)
		}
		if n := s.keptBlocks(t); n != sweepAtOnce*3+30 {
			t.Errorf("deleting has removed blocks itself: %d are left", n)
		}
		ctx, stop := context.WithCancel(t.Context())
		batches := 0
		s.store.DB.SetFailpoints(func(name string) error { // it is stopped after its first batch
			if batches++; batches > 1 {
				stop()
				return context.Canceled
			}
			return nil
		})
		if err := s.Sweep(ctx); err == nil {
			t.Error("it was not stopped")
		}
		s.store.DB.SetFailpoints(nil)
		if err := s.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := s.keptBlocks(t); n != 20 {
			t.Errorf("%d blocks are kept, want 20", n)
		}
		latest, err := s.Latest(t.Context(), alice)
		if err != nil || VersionText(latest.Version) != kept || latest.Sessions != 20 {
			t.Error(latest, err)
		}
	})
}

func TestBoundsOfBackups(t *testing.T) {
	each(t, func(t *testing.T, s *Service) {
		version := s.create(t)
		state := s.put(t, version, key("a", false, 0, 0))
		tooLarge := func(what string, keys ...Session) {
			t.Helper()
			if _, err := s.Put(t.Context(), alice, version, keys); !mxerr.Is(err, "M_TOO_LARGE") {
				t.Errorf("%s: %v", what, err)
			}
			if b, err := s.Latest(t.Context(), alice); err != nil || stateOf(b) != state {
				t.Errorf("%s has changed %+v into %+v, %v", what, state, b, err)
			}
		}
		large := key("b", true, 0, 0)
		large.SessionData = json.RawMessage(`{"a":"` + strings.Repeat("x", MaxSessionData) + `"}`)
		tooLarge("a large session", key("c", true, 0, 0), large)
		many := make([]Session, MaxAtOnce+1)
		for i := range many {
			many[i] = key(fmt.Sprint(i), true, 0, 0)
		}
		tooLarge("many sessions", many...)
		state = s.put(t, version, many[1:]...)
		// Of more than a user may keep nothing is added, and nothing replaced. Versions count together.
		version, state = s.create(t), State{"0", 0}
		fill := s.store.DB.Stmt(`UPDATE clientapi_backups SET sessions = $1, bytes = $2 WHERE version = 1`)
		for _, full := range []struct{ sessions, bytes int64 }{{MaxSessions, 1}, {1, MaxBytes}} {
			err := s.store.DB.Write(t.Context(), "fill", func(ctx context.Context, tx *sqlutil.Tx) error {
				_, err := fill.Exec(ctx, tx, full.sessions, full.bytes)
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			tooLarge("one more than a user may have", key("new", true, 0, 0))
		}
		first := version
		for range MaxVersions - 1 {
			version = s.create(t)
		}
		if _, err := s.Backup(t.Context(), alice, first); err != nil {
			t.Errorf("version %s: %v", first, err)
		}
		if _, err := s.Backup(t.Context(), alice, "1"); !mxerr.Is(err, "M_NOT_FOUND") {
			t.Errorf("the oldest is there: %v", err)
		}
		if err := s.Delete(t.Context(), alice, "1"); err != nil {
			t.Errorf("the oldest was deleted before: %v", err)
		}
		authData := json.RawMessage(`{"a":"` + strings.Repeat("x", MaxAuthData) + `"}`)
		if _, err := s.Create(t.Context(), alice, "m.x", authData); !mxerr.Is(err, "M_TOO_LARGE") {
			t.Errorf("large auth_data: %v", err)
		}
	})
}

// An answer that has begun must not end as if it were whole, where its keys are deleted meanwhile: they may be swept.
func TestPagesOfWhatIsDeletedBreakOff(t *testing.T) {
	each(t, func(t *testing.T, s *Service) {
		for what, remove := range map[string]func(version string) error{
			"the version": func(version string) error { return s.Delete(t.Context(), alice, version) },
			"all keys": func(version string) error {
				_, err := s.DeleteKeys(t.Context(), alice, version)
				return err
			},
		} {
			version := s.create(t)
			keys := make([]Session, 4*(blocksAtOnce+1))
			for i := range keys { // four of them are a block
				keys[i] = key(fmt.Sprint(i), true, 0, 0)
				keys[i].SessionData = json.RawMessage(`{"a":"` + strings.Repeat("x", fullBlock/4) + `"}`)
			}
			for some := range slices.Chunk(keys, 40) {
				s.put(t, version, some...)
			}
			for _, of := range []id.RoomID{"", room} {
				pages, err := s.Keys(t.Context(), alice, version, of)
				if err != nil {
					t.Fatal(err)
				}
				first, err := pages.Next(t.Context(), nil)
				if err != nil || len(first) < blocksAtOnce*fullBlock {
					t.Fatal(len(first), err)
				}
				if of == room {
					if err := remove(version); err != nil {
						t.Fatal(err)
					}
					if rest, err := pages.Next(t.Context(), nil); !mxerr.Is(err, "M_NOT_FOUND") {
						t.Errorf("%s was deleted: %d bytes, %v", what, len(rest), err)
					}
					continue
				}
				whole, err := pages.Next(t.Context(), first)
				if err != nil || !pages.at.over || countSessions(t, whole)[room] != len(keys) {
					t.Errorf("the pages have %v sessions of %d, %v", countSessions(t, whole), len(keys), err)
				}
			}
		}
	})
}

// countSessions reads the keys of a backup.
func countSessions(t *testing.T, text []byte) map[id.RoomID]int {
	t.Helper()
	var all struct {
		Rooms map[id.RoomID]struct {
			Sessions map[string]json.RawMessage `json:"sessions"`
		} `json:"rooms"`
	}
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	n := make(map[id.RoomID]int)
	for room, in := range all.Rooms {
		n[room] = len(in.Sessions)
	}
	return n
}
