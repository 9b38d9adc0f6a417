package keys

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"

	"github.com/matrix-org/dendrite/clientapi/storage"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// Upload is what POST /keys/upload takes. Each part may be absent or null.
type Upload struct {
	DeviceKeys   json.RawMessage `json:"device_keys"`
	OneTimeKeys  json.RawMessage `json:"one_time_keys"`
	FallbackKeys json.RawMessage `json:"fallback_keys"`
}

// Checked is an upload of a device whose form and signatures are right.
type Checked struct {
	user       id.UserID
	device     id.DeviceID
	identity   *identity
	public     string             // with which one-time and fallback keys were checked; empty: the device has none
	signatures []checkedSignature // of other keys of the user on the identity keys
	oneTime    []oneTimeKey
	fallback   []oneTimeKey
	before     *known
}

// known is what there is of a device before an upload.
type known struct {
	keys    *storage.DeviceKeys // nil: none
	pools   []storage.KeyPool
	oneTime map[string]string // keys that have the ids of those that are uploaded
	ring    ring              // the user's cross-signing keys, if the upload has signatures of them
}

// Upload stores keys of a device, and returns how many one-time keys can be claimed of each algorithm. What is
// there already is no error and changes nothing. M_INVALID_PARAM for keys of other users or devices, and for other
// identity keys than the device has; M_INVALID_SIGNATURE; M_UNKNOWN for a one-time key whose id another key has.
func (s *Service) Upload(ctx context.Context, user id.UserID, device id.DeviceID, u Upload) (map[string]int, error) {
	c, before, err := s.check(ctx, user, device, u)
	if err != nil {
		return nil, err
	}
	pools := before.pools
	if c.changes(before) {
		err = s.db().Write(ctx, "upload keys", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
			pools, err = s.put(ctx, tx, c)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("upload keys of %s of %s: %w", device, user, err)
		}
	}
	left := counts(pools)
	if _, has := left[signedCurve]; !has {
		left[signedCurve] = 0 // said, since some clients do not upload keys where it is not
	}
	return left, nil
}

// CheckUpload checks all of an upload that can be checked before its transaction. The errors are those of Upload.
func (s *Service) CheckUpload(ctx context.Context, user id.UserID, device id.DeviceID, u Upload) (*Checked, error) {
	c, _, err := s.check(ctx, user, device, u)
	return c, err
}

// PutUpload stores a checked upload, and tells of it. The device must be there in the transaction.
func (s *Service) PutUpload(ctx context.Context, tx *sqlutil.Tx, c *Checked) error {
	_, err := s.put(ctx, tx, c)
	return err
}

func (s *Service) check(ctx context.Context, user id.UserID, dev id.DeviceID, u Upload) (c *Checked,
	before *known, err error) {
	c = &Checked{user: user, device: dev}
	if c.identity, err = parseIdentity(user, dev, u.DeviceKeys); err != nil {
		return nil, nil, err
	}
	if c.oneTime, err = parseOneTimeKeys("one_time_keys", user, dev, u.OneTimeKeys); err != nil {
		return nil, nil, err
	}
	if c.fallback, err = parseOneTimeKeys("fallback_keys", user, dev, u.FallbackKeys); err != nil {
		return nil, nil, err
	}
	for i := range c.fallback {
		if i > 0 && c.fallback[i].algorithm == c.fallback[i-1].algorithm {
			return nil, nil, mxerr.InvalidParam("there are two fallback keys of %s: an upload may have one of each algorithm",
				c.fallback[i].algorithm)
		}
	}
	if before, err = s.known(ctx, c); err != nil {
		return nil, nil, err
	}
	c.before = before
	if err := c.fits(before); err != nil {
		return nil, nil, err
	}
	if c.identity != nil {
		c.public = c.identity.public
		if c.signatures, err = ownSignatures(before.ring, user, string(dev), c.target(), c.identity.signatures); err != nil {
			return nil, nil, err
		}
	} else if before.keys != nil {
		c.public = before.keys.PublicKey
	}
	if c.public == "" {
		return c, before, nil
	}
	// One key of each kind is checked: who signs one wrongly does so with all, and whoever claims a key checks it.
	for _, keys := range [][]oneTimeKey{c.oneTime, c.fallback} {
		if i := slices.IndexFunc(keys, func(k oneTimeKey) bool { return k.form != nil }); i >= 0 {
			if err := keys[i].verify(c.public); err != nil {
				return nil, nil, err
			}
		}
	}
	return c, before, nil
}

// known reads what there is of a device: enough to answer an upload that changes nothing, or cannot be.
func (s *Service) known(ctx context.Context, c *Checked) (*known, error) {
	before := new(known)
	read := func(ctx context.Context, tx *sqlutil.Tx) (err error) {
		before.pools, err = s.Store.KeyPools(ctx, tx, c.owner())
		if err != nil || c.isEmpty() {
			return err
		}
		if before.keys, err = s.Store.DeviceKeys(ctx, tx, c.user, c.device); err != nil {
			return err
		}
		if before.oneTime, err = s.sameIDs(ctx, tx, c, before.pools); err != nil {
			return err
		}
		before.ring = make(ring)
		if c.identity == nil || len(c.identity.signatures[c.user]) < 2 {
			return nil
		}
		return s.addCrossSigning(ctx, tx, before.ring, []id.UserID{c.user})
	}
	run := s.db().Read
	if c.isEmpty() {
		run = s.db().ReadOne
	}
	if err := run(ctx, "keys of a device", read); err != nil {
		return nil, fmt.Errorf("read the keys of %s of %s: %w", c.device, c.user, err)
	}
	return before, nil
}

func (c *Checked) isEmpty() bool {
	return c.identity == nil && len(c.oneTime) == 0 && len(c.fallback) == 0
}

func (c *Checked) owner() map[id.UserID][]id.DeviceID {
	return map[id.UserID][]id.DeviceID{c.user: {c.device}}
}

// target is the identity key as what other keys sign.
func (c *Checked) target() key {
	return key{device, string(c.identity.form), c.identity.public, c.identity.signature}
}

// sameIDs reads the one-time keys that have ids of those that are uploaded.
func (s *Service) sameIDs(ctx context.Context, tx *sqlutil.Tx, c *Checked,
	pools []storage.KeyPool) (map[string]string, error) {
	var nids []int64
	for i := range pools {
		if p := &pools[i]; p.Uploaded > 0 && slices.ContainsFunc(c.oneTime,
			func(k oneTimeKey) bool { return k.algorithm == p.Algorithm }) {
			nids = append(nids, p.NID)
		}
	}
	if len(nids) == 0 {
		return nil, nil
	}
	batches, err := s.Store.KeyBatches(ctx, tx, nids)
	if err != nil {
		return nil, err
	}
	return find(batches, c.oneTime), nil
}

// isNow tells whether the pools have what they had when the upload was checked, but for keys that were claimed.
func (k *known) isNow(pools []storage.KeyPool) bool {
	return slices.EqualFunc(k.pools, pools, func(a, b storage.KeyPool) bool {
		return a.NID == b.NID && a.Uploaded == b.Uploaded
	})
}

// fits fails for an upload that contradicts what is there.
func (c *Checked) fits(before *known) error {
	if c.identity != nil && before.keys != nil && !sameKeys(c.identity.form, []byte(before.keys.JSON)) {
		return mxerr.InvalidParam("the device %s has other identity keys, which never change: log in again for a new device",
			c.device)
	}
	fresh := make(map[string]int)
	for i := range c.oneTime {
		k := &c.oneTime[i]
		old, has := before.oneTime[k.id]
		if has && !sameKey(old, k.json) {
			// Clients read both keys out of these words.
			return mxerr.New(http.StatusBadRequest, "M_UNKNOWN",
				"One time key %s already exists. Old key: %s; new key: %s", k.id, old, k.json)
		}
		if !has {
			fresh[k.algorithm]++
		}
	}
	algorithms := make(map[string]bool)
	for i := range before.pools {
		p := &before.pools[i]
		algorithms[p.Algorithm] = true
		fresh[p.Algorithm] += p.Left()
	}
	for _, k := range slices.Concat(c.oneTime, c.fallback) {
		algorithms[k.algorithm] = true
		if n := fresh[k.algorithm]; n > MaxOneTimeKeys {
			return mxerr.InvalidParam("the device would have %d one-time keys of %s: it may have %d", n, k.algorithm,
				MaxOneTimeKeys)
		}
	}
	if len(algorithms) > MaxKeyAlgorithms {
		return mxerr.InvalidParam("a device may have one-time and fallback keys of %d algorithms", MaxKeyAlgorithms)
	}
	return nil
}

// changes tells whether an upload has anything that is not there.
func (c *Checked) changes(before *known) bool {
	if c.identity != nil && (before.keys == nil || before.keys.JSON != string(c.identity.form) || len(c.signatures) > 0) {
		return true
	}
	if len(c.oneTime) > len(before.oneTime) {
		return true
	}
	return slices.ContainsFunc(c.fallback, func(k oneTimeKey) bool {
		return !slices.ContainsFunc(before.pools, func(p storage.KeyPool) bool {
			return p.Algorithm == k.algorithm && hasFallback(&p, &k)
		})
	})
}

func hasFallback(p *storage.KeyPool, k *oneTimeKey) bool {
	return p.FallbackID == k.id && sameKey(p.FallbackJSON, k.json)
}

// put stores an upload, and returns what the device has then.
func (s *Service) put(ctx context.Context, tx *sqlutil.Tx, c *Checked) ([]storage.KeyPool, error) {
	exists, err := s.Store.LockDevice(ctx, tx, c.user, c.device)
	if err != nil {
		return nil, fmt.Errorf("lock the device: %w", err)
	}
	if !exists {
		return nil, mxerr.New(http.StatusUnauthorized, "M_UNKNOWN_TOKEN", "the device %s was logged out", c.device)
	}
	before := new(known)
	if before.pools, err = s.Store.LockKeyPools(ctx, tx, c.owner()); err != nil {
		return nil, fmt.Errorf("lock one-time keys: %w", err)
	}
	if c.before.isNow(before.pools) {
		before.oneTime = c.before.oneTime
	} else if before.oneTime, err = s.sameIDs(ctx, tx, c, before.pools); err != nil {
		return nil, fmt.Errorf("read one-time keys: %w", err)
	}
	if c.identity != nil {
		if before.keys, err = s.Store.DeviceKeys(ctx, tx, c.user, c.device); err != nil {
			return nil, fmt.Errorf("read the identity keys: %w", err)
		}
	}
	if err := c.fits(before); err != nil {
		return nil, err
	}
	if err := s.putIdentity(ctx, tx, c, before); err != nil {
		return nil, err
	}
	return s.putOneTime(ctx, tx, c, before)
}

func (s *Service) putIdentity(ctx context.Context, tx *sqlutil.Tx, c *Checked, before *known) error {
	if c.identity == nil {
		return nil
	}
	changed := before.keys == nil || before.keys.JSON != string(c.identity.form)
	if !changed && len(c.signatures) == 0 {
		return nil
	}
	if err := s.CheckDeviceID(ctx, tx, c.user, c.device); err != nil {
		return err
	}
	if err := s.lock(ctx, tx, c.user); err != nil {
		return err
	}
	if changed {
		if err := s.Store.DeleteSignaturesOn(ctx, tx, c.user, []string{string(c.device)}); err != nil {
			return fmt.Errorf("drop signatures of what was there: %w", err)
		}
		if err := s.Store.PutDeviceKeys(ctx, tx, storage.DeviceKeys{UserID: c.user, DeviceID: c.device,
			PublicKey: c.identity.public, Signature: c.identity.signature, JSON: string(c.identity.form)}); err != nil {
			return fmt.Errorf("store the identity keys: %w", err)
		}
	}
	added, err := s.putSignatures(ctx, tx, c.user, c.signatures)
	if err != nil {
		return err
	}
	if !changed && len(added) == 0 {
		return nil
	}
	return s.announce(ctx, tx, c.user, false, c.device)
}

func (s *Service) putOneTime(ctx context.Context, tx *sqlutil.Tx, c *Checked, before *known) ([]storage.KeyPool,
	error) {
	pools := before.pools
	pool := func(algorithm string) (*storage.KeyPool, error) {
		i := slices.IndexFunc(pools, func(p storage.KeyPool) bool { return p.Algorithm == algorithm })
		if i >= 0 {
			return &pools[i], nil
		}
		p := storage.KeyPool{UserID: c.user, DeviceID: c.device, Algorithm: algorithm}
		if err := s.Store.AddKeyPool(ctx, tx, &p); err != nil {
			return nil, fmt.Errorf("add %s: %w", algorithm, err)
		}
		pools = append(pools, p)
		return &pools[len(pools)-1], nil
	}
	changed := make(map[string]bool) // algorithms
	fresh := make(map[string][]*oneTimeKey)
	for i := range c.oneTime {
		k := &c.oneTime[i]
		if _, has := before.oneTime[k.id]; !has {
			fresh[k.algorithm] = append(fresh[k.algorithm], k)
		}
	}
	for algorithm, keys := range fresh {
		p, err := pool(algorithm)
		if err != nil {
			return nil, err
		}
		changed[algorithm] = true
		for _, b := range batches(p, keys) {
			if err := s.Store.AddKeyBatch(ctx, tx, b); err != nil {
				return nil, fmt.Errorf("store one-time keys: %w", err)
			}
		}
	}
	for i := range c.fallback {
		k := &c.fallback[i]
		p, err := pool(k.algorithm)
		if err != nil {
			return nil, err
		}
		if !hasFallback(p, k) {
			p.FallbackID, p.FallbackJSON, p.FallbackUsed = k.id, k.json, false
			changed[k.algorithm] = true
		}
	}
	if len(changed) == 0 {
		return pools, nil
	}
	for i := range pools {
		p := &pools[i]
		if !changed[p.Algorithm] {
			continue
		}
		if err := s.Store.UpdateKeyPool(ctx, tx, *p); err != nil {
			return nil, fmt.Errorf("count one-time keys: %w", err)
		}
		if p.Given <= MaxGiven {
			continue
		}
		if err := s.Store.ForgetGiven(ctx, tx, p.NID, p.Given-MaxGiven); err != nil {
			return nil, fmt.Errorf("forget keys that were given: %w", err)
		}
	}
	s.announceCounts(ctx, tx, c.user, c.device, pools)
	return pools, nil
}
