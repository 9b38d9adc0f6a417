package keys

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/matrix-org/dendrite/clientapi/storage"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// errRepeated says that a claim was answered before.
var errRepeated = errors.New("this claim was answered before")

// Claim takes a key of an algorithm for each device, of users of any server (§ POST /keys/claim). requestKey is the
// claim's: none other may have it. M_INVALID_PARAM for what asks too much.
func (s *Service) Claim(ctx context.Context, requestKey string, timeout time.Duration,
	wanted map[id.UserID]map[id.DeviceID]string) (Claimed, Unreachable, error) {
	for user := range wanted {
		if _, err := id.ParseUserID(string(user)); err != nil {
			return nil, nil, mxerr.InvalidParam("one_time_keys: %v", err)
		}
	}
	if err := checkClaim(wanted); err != nil {
		return nil, nil, err
	}
	servers := apart(wanted)
	local := servers[s.Server]
	delete(servers, s.Server)
	claimed, err := s.ClaimLocal(ctx, requestKey, local)
	if err != nil {
		return nil, nil, err
	}
	var ask func(context.Context, id.ServerName, map[id.UserID]map[id.DeviceID]string) (Claimed, error)
	if s.Elsewhere != nil {
		ask = s.Elsewhere.ClaimKeys
	}
	failures := askAll(ctx, timeout, servers, ask, func(users map[id.UserID]map[id.DeviceID]string,
		c Claimed) {
		copyAsked(claimed, c, users)
	})
	return claimed, failures, nil
}

func checkClaim(wanted map[id.UserID]map[id.DeviceID]string) error {
	n := 0
	for _, devices := range wanted {
		n += len(devices)
	}
	if n > MaxClaimDevices {
		return mxerr.InvalidParam("a claim may name %d devices", MaxClaimDevices)
	}
	return nil
}

// ClaimLocal takes keys of local users: for each device that has a key of the algorithm the oldest of its one-time
// keys, or else its fallback key. A claim that is repeated with its request key within ten minutes gets the same
// keys.
func (s *Service) ClaimLocal(ctx context.Context, requestKey string,
	wanted map[id.UserID]map[id.DeviceID]string) (Claimed, error) {
	if err := checkClaim(wanted); err != nil {
		return nil, err
	}
	devices := make(map[id.UserID][]id.DeviceID)
	for user, of := range wanted {
		for device, algorithm := range of {
			if isName(string(user)) && isName(string(device)) && isName(algorithm) {
				devices[user] = append(devices[user], device)
			}
		}
	}
	if len(devices) == 0 {
		return Claimed{}, nil
	}
	var claimed Claimed
	take := func(ctx context.Context, tx *sqlutil.Tx) (err error) {
		claimed, err = s.take(ctx, tx, requestKey, wanted, devices)
		return err
	}
	err := s.db().Write(ctx, "claim keys", take)
	if errors.Is(err, sqlutil.ErrCommitUnknown) {
		err = s.db().Write(ctx, "claim keys", take) // its request key tells whether it took place
	}
	if errors.Is(err, errRepeated) {
		claimed, err = s.claimedBefore(ctx, requestKey)
	}
	if err != nil {
		return nil, fmt.Errorf("claim keys of %d users: %w", len(devices), err)
	}
	return claimed, nil
}

func (s *Service) claimedBefore(ctx context.Context, requestKey string) (claimed Claimed, err error) {
	var answer []byte
	err = s.db().ReadOne(ctx, "claim", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
		answer, err = s.Store.Claim(ctx, tx, requestKey)
		return err
	})
	if err == nil {
		err = json.Unmarshal(answer, &claimed)
	}
	return claimed, err
}

func (s *Service) take(ctx context.Context, tx *sqlutil.Tx, requestKey string,
	wanted map[id.UserID]map[id.DeviceID]string, devices map[id.UserID][]id.DeviceID) (Claimed, error) {
	pools, err := s.Store.LockKeyPools(ctx, tx, devices)
	if err != nil {
		return nil, fmt.Errorf("lock one-time keys: %w", err)
	}
	byNID := make(map[int64]*storage.KeyPool)
	var full, empty []int64
	for i := range pools {
		p := &pools[i]
		switch {
		case wanted[p.UserID][p.DeviceID] != p.Algorithm:
			continue
		case p.Left() > 0:
			full = append(full, p.NID)
		case p.FallbackID != "":
			empty = append(empty, p.NID)
		}
		byNID[p.NID] = p
	}
	claimed := make(Claimed)
	give := func(p *storage.KeyPool, key json.RawMessage) {
		if claimed[p.UserID] == nil {
			claimed[p.UserID] = make(map[id.DeviceID]json.RawMessage)
		}
		claimed[p.UserID][p.DeviceID] = key
	}
	changed := make(map[id.UserID]map[id.DeviceID]bool)
	change := func(p *storage.KeyPool) {
		if changed[p.UserID] == nil {
			changed[p.UserID] = make(map[id.DeviceID]bool)
		}
		changed[p.UserID][p.DeviceID] = true
	}
	if len(full) > 0 {
		taken, err := s.Store.TakeOneTimeKeys(ctx, tx, full)
		if err != nil {
			return nil, fmt.Errorf("take one-time keys: %w", err)
		}
		for _, k := range taken {
			p := byNID[k.Pool]
			p.Given++
			give(p, member(k.Slot))
			change(p)
		}
	}
	var used []int64 // that were not used before
	for _, nid := range empty {
		p := byNID[nid]
		give(p, append(append(append(pdu.AppendString([]byte{'{'}, p.FallbackID), ':'), p.FallbackJSON...), '}'))
		if !p.FallbackUsed {
			p.FallbackUsed = true
			used = append(used, nid)
			change(p)
		}
	}
	if len(used) > 0 {
		if err := s.Store.UseFallbackKeys(ctx, tx, used); err != nil {
			return nil, fmt.Errorf("note the use of fallback keys: %w", err)
		}
	}
	if len(claimed) == 0 {
		before, err := s.Store.Claim(ctx, tx, requestKey)
		if err == nil && before != nil {
			err = errRepeated
		}
		return claimed, err
	}
	if err := s.remember(ctx, tx, requestKey, claimed); err != nil {
		return nil, err
	}
	s.announceClaimed(ctx, tx, pools, changed)
	return claimed, nil
}

func (s *Service) remember(ctx context.Context, tx *sqlutil.Tx, requestKey string, claimed Claimed) error {
	answer, err := json.Marshal(claimed)
	if err != nil {
		return err
	}
	mine, err := s.Store.PutClaim(ctx, tx, requestKey, s.Now().UnixMilli(), answer)
	switch {
	case err != nil:
		return fmt.Errorf("remember the claim: %w", err)
	case !mine:
		return errRepeated
	}
	return nil
}

// announceClaimed tells of the devices whose counts have changed. pools are all of these devices.
func (s *Service) announceClaimed(ctx context.Context, tx *sqlutil.Tx, pools []storage.KeyPool,
	changed map[id.UserID]map[id.DeviceID]bool) {
	type owner struct {
		user   id.UserID
		device id.DeviceID
	}
	of := make(map[owner][]storage.KeyPool)
	for _, p := range pools {
		if changed[p.UserID][p.DeviceID] {
			of[owner{p.UserID, p.DeviceID}] = append(of[owner{p.UserID, p.DeviceID}], p)
		}
	}
	for o, pools := range of {
		s.announceCounts(ctx, tx, o.user, o.device, pools)
	}
}

// DropOldClaims forgets claims that nobody repeats any more.
func (s *Service) DropOldClaims(ctx context.Context) error {
	err := s.db().Write(ctx, "drop old claims", func(ctx context.Context, tx *sqlutil.Tx) error {
		return s.Store.DeleteOldClaims(ctx, tx, s.Now().Add(-claimsRememberFor).UnixMilli())
	})
	if err != nil {
		return fmt.Errorf("drop old claims: %w", err)
	}
	return nil
}
