package keys

import (
	"context"

	"github.com/matrix-org/dendrite/clientapi/storage"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// Usages of cross-signing keys.
const (
	Master      = "master"
	SelfSigning = "self_signing"
	UserSigning = "user_signing"
)

// device is, among the kinds of keys, an identity key of a device.
const device = "device"

// key is one that signs or is signed.
type key struct {
	kind      string // a usage, or device
	form      string // what is signed of it
	public    string
	signature string // its own or, of a cross-signing key that is not the master key, that of the master key
}

// ring has keys of users by their ids: device ids and public keys.
type ring map[id.UserID]map[string]key

func (r ring) add(user id.UserID, name string, k key) {
	if r[user] == nil {
		r[user] = make(map[string]key)
	}
	r[user][name] = k
}

// ring reads the keys of a user's devices, and the cross-signing keys of that user and others.
func (s *Service) ring(ctx context.Context, tx *sqlutil.Tx, owner id.UserID, others ...id.UserID) (ring, error) {
	r := make(ring)
	devices, err := s.Store.UsersDeviceKeys(ctx, tx, []id.UserID{owner})
	if err != nil {
		return nil, err
	}
	for i := range devices {
		d := &devices[i]
		r.add(d.UserID, string(d.DeviceID), key{device, d.JSON, d.PublicKey, d.Signature})
	}
	return r, s.addCrossSigning(ctx, tx, r, append([]id.UserID{owner}, others...))
}

func (s *Service) addCrossSigning(ctx context.Context, tx *sqlutil.Tx, r ring, users []id.UserID) error {
	cross, err := s.Store.CrossSigningKeys(ctx, tx, users)
	for i := range cross {
		k := crossKey(&cross[i])
		r.add(cross[i].UserID, k.public, k)
	}
	return err
}

func crossKey(k *storage.CrossSigningKey) key { return key{k.Usage, k.JSON, k.PublicKey, k.Signature} }
