package keys

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/matrix-org/dendrite/clientapi/storage"
	"github.com/matrix-org/dendrite/clientapi/tokens"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// CrossSigning is what POST /keys/device_signing/upload takes. Each key may be absent or null.
type CrossSigning struct {
	Master      json.RawMessage `json:"master_key"`
	SelfSigning json.RawMessage `json:"self_signing_key"`
	UserSigning json.RawMessage `json:"user_signing_key"`
}

// CheckedCrossSigning are cross-signing keys whose form and signatures are right.
type CheckedCrossSigning struct {
	user id.UserID
	// Replaces says that the user has a master key, and not yet all of these keys: only who proves to be the user may
	// change them.
	Replaces   bool
	keys       []storage.CrossSigningKey
	signatures []checkedSignature // by devices on the master key
	master     string             // the public key that has signed the others
}

// parseCrossSigning reads one of the keys; nil if there is none.
func parseCrossSigning(user id.UserID, what, usage string, raw json.RawMessage) (*storage.CrossSigningKey,
	signatures, error) {
	if isNull(raw) {
		return nil, nil, nil
	}
	var body struct {
		UserID     *id.UserID
		Usage      []string
		Keys       map[string]string
		Signatures signatures
	}
	if err := members(what, raw, map[string]any{"user_id": &body.UserID, "usage": &body.Usage, "keys": &body.Keys,
		"signatures": &body.Signatures}); err != nil {
		return nil, nil, err
	}
	switch {
	case body.UserID == nil || body.Usage == nil || body.Keys == nil:
		return nil, nil, mxerr.BadJSON("%s must have user_id, usage and keys", what)
	case *body.UserID != user:
		return nil, nil, mxerr.InvalidParam("%s must have user_id %s, not that of another user", what, user)
	case !slices.Equal(body.Usage, []string{usage}):
		return nil, nil, mxerr.InvalidParam("%s must have the usage %s, and no other", what, usage)
	case len(body.Keys) != 1:
		return nil, nil, mxerr.InvalidParam("%s must have exactly one key, not %d", what, len(body.Keys))
	}
	k := &storage.CrossSigningKey{UserID: user, Usage: usage}
	for name, key := range body.Keys {
		algorithm, public, err := keyID(name)
		if err != nil {
			return nil, nil, err
		}
		if algorithm != ed || public != key || publicKey(key) == nil {
			return nil, nil, mxerr.InvalidParam(
				"%s must have a key ed25519:KEY of 32 bytes, with KEY as its value too, in unpadded base64", what)
		}
		k.PublicKey = key
	}
	form, err := form(what, raw, MaxIdentity)
	k.JSON = string(form)
	return k, body.Signatures, err
}

// CheckCrossSigning checks cross-signing keys that a user wants to have. M_MISSING_PARAM where there is no master key,
// M_INVALID_SIGNATURE where it has not signed the others, M_FORBIDDEN for a key that is the id of a device,
// M_INVALID_PARAM for keys of others or of a wrong kind.
func (s *Service) CheckCrossSigning(ctx context.Context, user id.UserID,
	body CrossSigning) (*CheckedCrossSigning, error) {
	master, onMaster, err := parseCrossSigning(user, "master_key", Master, body.Master)
	if err != nil {
		return nil, err
	}
	self, onSelf, err := parseCrossSigning(user, "self_signing_key", SelfSigning, body.SelfSigning)
	if err != nil {
		return nil, err
	}
	using, onUsing, err := parseCrossSigning(user, "user_signing_key", UserSigning, body.UserSigning)
	if err != nil {
		return nil, err
	}
	now, err := s.owned(ctx, user)
	if err != nil {
		return nil, err
	}
	c := &CheckedCrossSigning{user: user, master: now.cross[Master].public}
	if master != nil {
		c.master = master.PublicKey
		c.keys = append(c.keys, *master)
		if c.signatures, err = ownSignatures(now.ring, user, master.PublicKey, crossKey(master), onMaster); err != nil {
			return nil, err
		}
	}
	if c.master == "" {
		return nil, mxerr.MissingParam("you have no master signing key: send master_key")
	}
	for _, k := range []struct {
		what string
		*storage.CrossSigningKey
		signatures
	}{{"self_signing_key", self, onSelf}, {"user_signing_key", using, onUsing}} {
		if k.CrossSigningKey == nil {
			continue
		}
		k.Signature = k.signatures[user][ed+":"+c.master]
		if !signed([]byte(k.JSON), c.master, k.Signature) {
			return nil, invalidSignature("%s is not signed with the master key %s", k.what, c.master)
		}
		c.keys = append(c.keys, *k.CrossSigningKey)
	}
	c.Replaces = c.replaces(now)
	return c, c.fits(now)
}

// owned is what a user has.
type owned struct {
	ring    ring
	cross   map[string]key // by usage
	devices []storage.Device
}

func (s *Service) readOwned(ctx context.Context, tx *sqlutil.Tx, user id.UserID) (*owned, error) {
	o := &owned{cross: make(map[string]key)}
	var err error
	if o.ring, err = s.ring(ctx, tx, user); err != nil {
		return nil, err
	}
	for _, k := range o.ring[user] {
		if k.kind != device {
			o.cross[k.kind] = k
		}
	}
	o.devices, err = s.Store.DeviceIDs(ctx, tx, []id.UserID{user})
	return o, err
}

func (s *Service) owned(ctx context.Context, user id.UserID) (o *owned, err error) {
	err = s.db().Read(ctx, "keys of a user", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
		o, err = s.readOwned(ctx, tx, user)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the keys of %s: %w", user, err)
	}
	return o, nil
}

func (c *CheckedCrossSigning) replaces(now *owned) bool {
	return now.cross[Master].public != "" && slices.ContainsFunc(c.keys, func(k storage.CrossSigningKey) bool {
		return now.cross[k.Usage].form != k.JSON
	})
}

func (c *CheckedCrossSigning) has(usage string) bool {
	return slices.ContainsFunc(c.keys, func(k storage.CrossSigningKey) bool { return k.Usage == usage })
}

// fits checks that no two keys of the user would have the same id.
func (c *CheckedCrossSigning) fits(now *owned) error {
	usages := make(map[string]string) // by public key
	if c.master == now.cross[Master].public {
		for usage, k := range now.cross {
			if !c.has(usage) {
				usages[k.public] = usage
			}
		}
	}
	for i := range c.keys {
		k := &c.keys[i]
		if slices.ContainsFunc(now.devices, func(d storage.Device) bool { return string(d.DeviceID) == k.PublicKey }) {
			return mxerr.Forbidden("%s is the id of one of your devices: use another key", k.PublicKey)
		}
		if other, used := usages[k.PublicKey]; used {
			return mxerr.InvalidParam("%s would be your %s key and your %s key: use a key for each", k.PublicKey, other, k.Usage)
		}
		usages[k.PublicKey] = k.Usage
	}
	return nil
}

// PutCrossSigning stores keys that were checked. Another master key ends the keys that the former one has signed,
// and no signature of a key that was replaced is shown any more. What is there already changes nothing.
func (s *Service) PutCrossSigning(ctx context.Context, c *CheckedCrossSigning) error {
	err := s.db().Write(ctx, "upload cross-signing keys", func(ctx context.Context, tx *sqlutil.Tx) error {
		if err := tokens.StillActive(ctx, tx, s.Store, c.user); err != nil {
			return err
		}
		if err := s.lock(ctx, tx, c.user); err != nil {
			return err
		}
		now, err := s.readOwned(ctx, tx, c.user)
		if err != nil {
			return fmt.Errorf("read the keys again: %w", err)
		}
		if !c.has(Master) && now.cross[Master].public != c.master || c.replaces(now) && !c.Replaces {
			return mxerr.Unavailable("other cross-signing keys were uploaded meanwhile: send the request again")
		}
		if err := c.fits(now); err != nil {
			return err
		}
		return s.replace(ctx, tx, c, now)
	})
	if err != nil {
		return fmt.Errorf("upload cross-signing keys of %s: %w", c.user, err)
	}
	return nil
}

// replace stores the keys of an upload that are not there, and tells those who see the change.
func (s *Service) replace(ctx context.Context, tx *sqlutil.Tx, c *CheckedCrossSigning, now *owned) error {
	newMaster := now.cross[Master].public != c.master
	var ended []string      // usages
	var signed, by []string // public keys on which, and by which, signatures end
	for usage, old := range now.cross {
		i := slices.IndexFunc(c.keys, func(k storage.CrossSigningKey) bool { return k.Usage == usage })
		switch {
		case i < 0 && newMaster:
			ended = append(ended, usage)
			signed, by = append(signed, old.public), append(by, old.public)
		case i < 0:
		case c.keys[i].PublicKey != old.public:
			signed, by = append(signed, old.public), append(by, old.public)
		case c.keys[i].JSON != old.form:
			signed = append(signed, old.public)
		}
	}
	others, err := s.dropSignatures(ctx, tx, c.user, signed, by)
	if err != nil {
		return err
	}
	if len(ended) > 0 {
		if err := s.Store.DeleteCrossSigningKeys(ctx, tx, c.user, ended); err != nil {
			return fmt.Errorf("delete keys of the former master key: %w", err)
		}
	}
	public, private := false, slices.Contains(ended, UserSigning) // what has changed
	for _, k := range c.keys {
		if !newMaster && now.cross[k.Usage].form == k.JSON {
			continue
		}
		if err := s.Store.PutCrossSigningKey(ctx, tx, k); err != nil {
			return fmt.Errorf("store the %s key: %w", k.Usage, err)
		}
		public, private = public || k.Usage != UserSigning, private || k.Usage == UserSigning
	}
	added, err := s.putSignatures(ctx, tx, c.user, c.signatures)
	if err != nil {
		return err
	}
	if private && !public {
		others = append(others, c.user)
	}
	s.announceSigned(ctx, tx, c.user, others)
	if public || len(added) > 0 {
		return s.announce(ctx, tx, c.user, false, "")
	}
	return nil
}
