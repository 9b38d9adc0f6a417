package accounts

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/bcrypt"
	"golang.org/x/sync/semaphore"

	"github.com/matrix-org/dendrite/common/mxerr"
)

const (
	// hashesWaiting is how many checks wait for each that is made at once. Beyond, clients are told to come back.
	hashesWaiting = 64
	hashesRetry   = 5 * time.Second
)

// hasher makes and checks hashes of passwords. That is meant to be much work: only so much is done at once that others
// find a processor.
type hasher struct {
	cost    int // of new hashes
	slots   *semaphore.Weighted
	most    int64 // that wait or are made
	at      atomic.Int64
	highest atomic.Int64 // cost of all hashes that were seen
	// compare is bcrypt's, but for tests that count the work.
	compare func(hash, password []byte) error
}

func newHasher(cost int) *hasher {
	slots := int64(max(runtime.GOMAXPROCS(0)-1, 1))
	h := &hasher{cost: cost, slots: semaphore.NewWeighted(slots), most: (hashesWaiting + 1) * slots,
		compare: bcrypt.CompareHashAndPassword}
	h.highest.Store(int64(cost))
	return h
}

// do waits for a processor. M_LIMIT_EXCEEDED if too many do.
func (h *hasher) do(ctx context.Context, work func() error) error {
	defer h.at.Add(-1)
	if h.at.Add(1) > h.most {
		return mxerr.LimitExceeded(hashesRetry)
	}
	if err := h.slots.Acquire(ctx, 1); err != nil {
		return fmt.Errorf("wait to check a password: %w", err)
	}
	defer h.slots.Release(1)
	return work()
}

// hash makes the hash of a password.
func (h *hasher) hash(ctx context.Context, password string) (string, error) {
	if len(password) > MaxPassword {
		return "", mxerr.InvalidParam("a password may have %d bytes", MaxPassword)
	}
	var hash []byte
	err := h.do(ctx, func() (err error) {
		hash, err = bcrypt.GenerateFromPassword(condense(password), h.cost)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("hash a password: %w", err)
	}
	return string(hash), nil
}

// check tells whether a password has a hash; an empty one is nobody's. It is the same work for all hashes, whatever
// their cost, and for none: that of the highest cost which was seen. stale says that the hash has another cost than new
// ones.
func (h *hasher) check(ctx context.Context, hash, password string) (right, stale bool, err error) {
	cost, exists := h.cost, hash != ""
	if exists {
		if cost, err = bcrypt.Cost([]byte(hash)); err != nil {
			return false, false, fmt.Errorf("the cost of a hash: %w", err)
		}
	}
	top := int(h.highest.Load())
	for ; top < cost; top = int(h.highest.Load()) {
		h.highest.CompareAndSwap(int64(top), int64(cost))
	}
	if !exists {
		cost, hash = top, decoy(top)
	}
	err = h.do(ctx, func() error {
		err := h.compare([]byte(hash), condense(password))
		for c := cost; c < top; c++ { // with these it is twice the work for each step up
			if err := h.compare([]byte(decoy(c)),
				condense(password)); !errors.Is(err, bcrypt.ErrMismatchedHashAndPassword) {
				return fmt.Errorf("a decoy: %w", err)
			}
		}
		return err
	})
	if errors.Is(err, bcrypt.ErrMismatchedHashAndPassword) {
		return false, false, nil
	}
	return err == nil && exists, cost != h.cost, err
}

// decoy is a hash of this cost that no password has.
func decoy(cost int) string { return fmt.Sprintf("$2a$%02d$%s", cost, strings.Repeat(".", 53)) }

// condense makes of any password one that bcrypt reads to its end: bcrypt stops at 72 bytes, and at NULs.
func condense(password string) []byte {
	sum := sha256.Sum256([]byte(password))
	return base64.StdEncoding.AppendEncode(nil, sum[:])
}
