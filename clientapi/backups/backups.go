// Package backups keeps the keys of users' sessions for them, encrypted by their clients (Client-Server API,
// § Server-side key backups).
//
// A user has versions of the backup, of which the newest takes keys. Count and ETag of a version move in the
// transaction that changes its keys, and only if it does. A version that is deleted is gone at once, however large: its
// keys are swept afterwards, by any replica. All keys are the user's own, so nothing here is told to others.
package backups

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/matrix-org/dendrite/clientapi/storage"
	"github.com/matrix-org/dendrite/clientapi/tokens"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// What a user may keep.
const (
	MaxAlgorithm = 255      // bytes of its name
	MaxAuthData  = 64 << 10 // bytes of JSON
	// MaxVersions is how many there are at once. Beyond, the oldest goes: clients read the newest only.
	MaxVersions = 50
)

// Service has the backups of all users.
type Service struct {
	store *storage.Store
	nids  *sqlutil.IDs
}

// New makes a Service.
func New(store *storage.Store) *Service {
	return &Service{store: store, nids: store.DB.IDs("clientapi_backups")}
}

// VersionText is a version as clients know it.
func VersionText(version int64) string { return strconv.FormatInt(version, 10) }

// parseVersion is 0 for what no version is called.
func parseVersion(text string) int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || VersionText(n) != text {
		return 0
	}
	return n
}

func unknownVersion() error { return mxerr.NotFound("Unknown backup version") }

func check(algorithm string, authData json.RawMessage) error {
	switch {
	case algorithm == "" || len(algorithm) > MaxAlgorithm || strings.ContainsRune(algorithm, 0):
		return mxerr.InvalidParam("the name of an algorithm has 1 to %d bytes and no NUL", MaxAlgorithm)
	case len(authData) > MaxAuthData:
		return mxerr.TooLarge("auth_data may have %d bytes", MaxAuthData)
	}
	return nil
}

// Create makes a backup without keys, which is the user's newest, and returns its version.
func (s *Service) Create(ctx context.Context, user id.UserID, algorithm string,
	authData json.RawMessage) (string, error) {
	if err := check(algorithm, authData); err != nil {
		return "", err
	}
	nid, err := s.nids.Next(ctx, 1)
	if err != nil {
		return "", fmt.Errorf("name a backup: %w", err)
	}
	b := &storage.Backup{NID: nid, Algorithm: algorithm, AuthData: authData}
	err = s.store.DB.Write(ctx, "create backup", func(ctx context.Context, tx *sqlutil.Tx) error {
		if err := tokens.StillActive(ctx, tx, s.store, user); err != nil {
			return err
		}
		if err := s.store.InsertBackup(ctx, tx, user, b); err != nil {
			return err
		}
		surplus, err := s.store.SurplusBackup(ctx, tx, user, MaxVersions)
		if err == nil && surplus != 0 {
			_, err = s.store.DeleteBackup(ctx, tx, user, surplus)
		}
		return err
	})
	if err != nil {
		return "", fmt.Errorf("create a backup of %s: %w", user, err)
	}
	return VersionText(b.Version), nil
}

// Latest returns the newest backup of a user. M_NOT_FOUND if there is none.
func (s *Service) Latest(ctx context.Context, user id.UserID) (*storage.Backup, error) {
	return s.one(ctx, "No current backup version", func(ctx context.Context, tx *sqlutil.Tx) (*storage.Backup, error) {
		return s.store.LatestBackup(ctx, tx, user)
	})
}

// Backup returns a version of a user's backup. M_NOT_FOUND if it is not there.
func (s *Service) Backup(ctx context.Context, user id.UserID, version string) (*storage.Backup, error) {
	return s.one(ctx, "Unknown backup version", func(ctx context.Context, tx *sqlutil.Tx) (*storage.Backup, error) {
		return s.store.Backup(ctx, tx, user, parseVersion(version))
	})
}

func (s *Service) one(ctx context.Context, missing string,
	read func(context.Context, *sqlutil.Tx) (*storage.Backup, error)) (b *storage.Backup, err error) {
	err = s.store.DB.ReadOne(ctx, "backup", func(ctx context.Context, tx *sqlutil.Tx) error {
		b, err = read(ctx, tx)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read a backup: %w", err)
	}
	if b == nil {
		return nil, mxerr.NotFound("%s", missing)
	}
	return b, nil
}

// Update replaces the auth_data of a backup. M_NOT_FOUND if it is not there, M_INVALID_PARAM for another algorithm.
func (s *Service) Update(ctx context.Context, user id.UserID, version, algorithm string,
	authData json.RawMessage) error {
	if err := check(algorithm, authData); err != nil {
		return err
	}
	b := &storage.Backup{Version: parseVersion(version), Algorithm: algorithm, AuthData: authData}
	return s.store.DB.Write(ctx, "update backup", func(ctx context.Context, tx *sqlutil.Tx) error {
		done, err := s.store.UpdateBackup(ctx, tx, user, b)
		if err != nil || done {
			return err
		}
		there, err := s.store.Backup(ctx, tx, user, b.Version)
		switch {
		case err != nil:
			return err
		case there == nil:
			return unknownVersion()
		}
		return mxerr.InvalidParam("Algorithm does not match: it is %s and cannot be changed", there.Algorithm)
	})
}

// Delete removes a backup. One that was deleted before counts as deleted; M_NOT_FOUND for what the user never had.
func (s *Service) Delete(ctx context.Context, user id.UserID, version string) error {
	n := parseVersion(version)
	return s.store.DB.Write(ctx, "delete backup", func(ctx context.Context, tx *sqlutil.Tx) error {
		done, err := s.store.DeleteBackup(ctx, tx, user, n)
		if err != nil || done {
			return err
		}
		last, err := s.store.LastVersion(ctx, tx, user)
		if err == nil && (n == 0 || n > last) {
			err = unknownVersion()
		}
		return err
	})
}

// wrongVersion says why a version takes no keys: another is the newest, or there is none. It is nil if the version has
// just become the newest, because a newer one was deleted.
func (s *Service) wrongVersion(ctx context.Context, tx *sqlutil.Tx, user id.UserID, version string) error {
	latest, err := s.store.LatestBackup(ctx, tx, user)
	switch {
	case err != nil:
		return err
	case latest == nil:
		return unknownVersion()
	case VersionText(latest.Version) == version:
		return nil
	}
	return mxerr.New(http.StatusForbidden, "M_WRONG_ROOM_KEYS_VERSION", "Wrong backup version.").
		With("current_version", VersionText(latest.Version))
}

// SweepEvery is how often Sweep is to be called.
const SweepEvery = 20 * time.Second

// sweepAtOnce is how many blocks of keys are swept in one transaction: others wait for it.
const sweepAtOnce = 25

// Sweep removes the keys that no backup has any more. Where it is stopped, it goes on the next time.
func (s *Service) Sweep(ctx context.Context) error {
	for {
		var nid int64
		more := false
		err := s.store.DB.ReadOne(ctx, "keys to sweep", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
			nid, more, err = s.store.NextSweep(ctx, tx)
			return err
		})
		if err != nil || !more {
			return err
		}
		for over := false; !over; {
			err := s.store.DB.Write(ctx, "sweep keys", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
				if over, err = s.store.SweepBackupBlocks(ctx, tx, nid, sweepAtOnce); err == nil && over {
					err = s.store.DeleteSweep(ctx, tx, nid)
				}
				return err
			})
			if err != nil {
				return fmt.Errorf("sweep deleted keys: %w", err)
			}
		}
	}
}
