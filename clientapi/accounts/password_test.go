package accounts

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/matrix-org/dendrite/clientapi/storage"
	"github.com/matrix-org/dendrite/common/config"
	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/common/test"
)

// world makes accounts on a database of their own, with a limit of 10 wrong passwords from one network, and of 100 from
// all.
func world(t *testing.T, cost int) *Service {
	t.Helper()
	db, err := sqlutil.Open(t.Context(), sqlutil.Options{
		ConnectionString: "file:" + filepath.Join(t.TempDir(), "test.db")}, sqlutil.Deps{})
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
	limits := httputil.NewLimits(config.RateLimits{ByName: map[string]config.RateLimit{
		limitOwn: {PerSecond: 1e-6, Burst: 10}, limitAll: {PerSecond: 1e-6, Burst: 100},
		limitBeyond: {PerSecond: 1e-6, Burst: 2}}})
	return New(Deps{Store: store, Server: "test", HashCost: cost, Limits: limits, Now: time.Now})
}

// makeAccount makes an account whose password, "right", has a hash of this cost, and a device that was seen at an
// address.
func (s *Service) makeAccount(t *testing.T, user id.UserID, cost int, seen string) {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword(condense("right"), cost)
	if err != nil {
		t.Fatal(err)
	}
	err = s.Store.DB.Write(t.Context(), "make", func(ctx context.Context, tx *sqlutil.Tx) error {
		if _, err := s.Store.InsertAccount(ctx, tx,
			storage.Account{UserID: user, PasswordHash: string(hash)}); err != nil {
			return err
		}
		return s.Store.PutDevice(ctx, tx, storage.Device{UserID: user, DeviceID: "D", LastSeenIP: seen})
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (s *Service) try(t *testing.T, user id.UserID, password, address string) string {
	t.Helper()
	err := s.CheckPassword(t.Context(), user, password, address)
	if m, is := mxerr.As(err); is {
		return m.Code
	}
	if err != nil {
		t.Fatal(err)
	}
	return ""
}

const (
	owner   = "@owner:test"
	home    = "2001:db8:1::7"
	limited = "M_LIMIT_EXCEEDED"
)

func TestTheOwnerIsNotLockedOutByOthersGuesses(t *testing.T) {
	for _, networks := range []int{5, 50, test.Soak(150, 500)} {
		s := world(t, 4)
		s.makeAccount(t, owner, 4, home)
		checked := 0
		s.hasher.compare = func(hash, password []byte) error {
			checked++
			return bcrypt.CompareHashAndPassword(hash, password)
		}
		for i := range networks {
			address := fmt.Sprintf("198.51.%d.%d", i/200, i%200)
			for range 12 {
				if code := s.try(t, owner, "wrong", address); code != "M_FORBIDDEN" && code != limited {
					t.Fatalf("a guess: %q", code)
				}
			}
			if code := s.try(t, owner, "right", address); code != limited {
				t.Errorf("after 12 guesses one more from there: %q", code)
			}
		}
		if want := min(10*networks, 100) + 2*max(networks-10, 0); checked != want {
			t.Errorf("%d networks had %d guesses, not %d", networks, checked, want)
		}
		for range 50 { // at home, and somewhere in the same network
			for _, address := range []string{home, "2001:db8:1::8:9"} {
				if code := s.try(t, owner, "right", address); code != "" {
					t.Fatalf("the owner at home, when %d networks guess: %q", networks, code)
				}
			}
		}
		for range 50 { // and on the way
			if code := s.try(t, owner, "right", "192.0.2.1"); code != "" {
				t.Errorf("the owner on the way, when %d networks guess: %q", networks, code)
			}
		}
		for range 10 { // who guesses at home is limited there
			s.try(t, owner, "wrong", home)
		}
		if code := s.try(t, owner, "right", home); code != limited {
			t.Errorf("after ten guesses at home: %q", code)
		}
	}
}

func TestRightPasswordsAreNotCounted(t *testing.T) {
	s := world(t, 4)
	s.makeAccount(t, owner, 4, home)
	for range 200 {
		if code := s.try(t, owner, "right", "192.0.2.1"); code != "" {
			t.Fatal(code)
		}
	}
}

func TestHashesAreRenewed(t *testing.T) {
	for _, cost := range []int{4, 6} {
		s := world(t, 5)
		s.makeAccount(t, owner, cost, home)
		costNow := func() int {
			t.Helper()
			account, err := s.account(t.Context(), owner)
			if err != nil {
				t.Fatal(err)
			}
			n, err := bcrypt.Cost([]byte(account.PasswordHash))
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		if code := s.try(t, owner, "wrong", home); code != "M_FORBIDDEN" || costNow() != cost {
			t.Errorf("a wrong password: %q, cost %d", code, costNow())
		}
		for range 2 {
			if code := s.try(t, owner, "right", home); code != "" || costNow() != 5 {
				t.Errorf("a right password: %q, cost %d", code, costNow())
			}
		}
		if code := s.try(t, owner, "wrong", home); code != "M_FORBIDDEN" {
			t.Errorf("a wrong password for the new hash: %q", code)
		}
	}
}

// Nobody learns from the time of an answer which users exist, and how old their passwords are.
func TestEveryCheckIsTheSameWork(t *testing.T) {
	s := world(t, 6)
	s.makeAccount(t, "@old:test", 4, home)
	s.makeAccount(t, "@middle:test", 5, home)
	s.makeAccount(t, "@new:test", 6, home)
	s.makeAccount(t, "@costly:test", 8, home)
	work := 0
	s.hasher.compare = func(hash, password []byte) error {
		cost, err := bcrypt.Cost(hash)
		if work += 1 << cost; err != nil {
			t.Error(err)
		}
		return bcrypt.CompareHashAndPassword(hash, password)
	}
	for _, want := range []int{1 << 6, 1 << 8} {
		for _, user := range []id.UserID{"@old:test", "@middle:test", "@new:test", "@nobody:test"} {
			if work = 0; s.try(t, user, "wrong", home) != "M_FORBIDDEN" || work != want {
				t.Errorf("a wrong password of %s is the work of %d, not %d", user, work, want)
			}
		}
		s.try(t, "@costly:test", "wrong", home) // from now on it is known that there are such
	}
}

func TestSoManyPasswordsAreCheckedAtOnce(t *testing.T) {
	slots := max(runtime.GOMAXPROCS(0)-1, 1)
	for _, n := range []int{10, 65 * slots, 650 * slots} {
		h := newHasher(4)
		var mu sync.Mutex
		running, most, refused, ended := 0, 0, 0, 0
		let := make(chan struct{})
		h.compare = func([]byte, []byte) error {
			mu.Lock()
			running++
			most = max(most, running)
			mu.Unlock()
			<-let
			mu.Lock()
			running--
			mu.Unlock()
			return bcrypt.ErrMismatchedHashAndPassword
		}
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		for range n {
			all.Go(func() {
				_, _, err := h.check(ctx, "", "x")
				mu.Lock()
				defer mu.Unlock()
				switch {
				case mxerr.Is(err, limited):
					refused++
				case errors.Is(err, context.Canceled):
					ended++
				case err != nil:
					t.Error(err)
				}
			})
		}
		room := 65 * slots
		for deadline := time.Now().Add(30 * time.Second); ; runtime.Gosched() {
			mu.Lock()
			there := int(h.at.Load()) == min(n, room) && refused == max(n-room, 0) && running == min(n, slots)
			mu.Unlock()
			if there {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("of %d checks %d wait, %d are refused", n, h.at.Load(), refused)
			}
		}
		cancel() // who waits ends with its request
		close(let)
		all.Wait()
		if most > slots || ended != max(min(n, room)-slots, 0) || h.at.Load() != 0 {
			t.Errorf("of %d checks %d were made at once, %d ended with their request", n, most, ended)
		}
	}
}
