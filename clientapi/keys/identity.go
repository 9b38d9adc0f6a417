package keys

import (
	"encoding/json"
	"maps"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
)

// identity is the device_keys of an upload. Its own signature is checked.
type identity struct {
	form       []byte
	public     string // the ed25519 key
	signature  string // with that key
	signatures signatures
}

// parseIdentity reads device_keys of a device; nil if there are none.
func parseIdentity(user id.UserID, device id.DeviceID, raw json.RawMessage) (*identity, error) {
	if isNull(raw) {
		return nil, nil
	}
	var body struct {
		UserID     *id.UserID
		DeviceID   *id.DeviceID
		Algorithms []string
		Keys       map[string]string
		Signatures signatures
	}
	if err := members("device_keys", raw, map[string]any{"user_id": &body.UserID, "device_id": &body.DeviceID,
		"algorithms": &body.Algorithms, "keys": &body.Keys, "signatures": &body.Signatures}); err != nil {
		return nil, err
	}
	switch {
	case body.UserID == nil || body.DeviceID == nil || body.Algorithms == nil || body.Keys == nil ||
		body.Signatures == nil:
		return nil, mxerr.BadJSON("device_keys must have user_id, device_id, algorithms, keys and signatures")
	case *body.UserID != user || *body.DeviceID != device:
		return nil, mxerr.InvalidParam("device_keys are not of your device: they must have user_id %s and device_id %s",
			user, device)
	case len(body.Keys) > MaxIdentityKeys || len(body.Algorithms) > MaxIdentityKeys:
		return nil, mxerr.InvalidParam("a device may have %d keys, and as many algorithms", MaxIdentityKeys)
	}
	for name, key := range body.Keys {
		algorithm, of, err := keyID(name)
		if err != nil {
			return nil, err
		}
		if of != string(device) {
			return nil, mxerr.InvalidParam("the key %s is not of the device %s", name, device)
		}
		if (algorithm == ed || algorithm == curve) && publicKey(key) == nil {
			return nil, notAKey(name)
		}
	}
	by := ed + ":" + string(device)
	i := &identity{public: body.Keys[by], signature: body.Signatures[user][by], signatures: body.Signatures}
	if i.public == "" {
		return nil, mxerr.InvalidParam("device_keys must have the key %s", by)
	}
	var err error
	if i.form, err = form("device_keys", raw, MaxIdentity); err != nil {
		return nil, err
	}
	if !signed(i.form, i.public, i.signature) {
		return nil, invalidSignature("device_keys are not signed with their key %s", by)
	}
	return i, nil
}

// sameKeys tells whether two forms of device_keys have the same keys.
func sameKeys(a, b []byte) bool {
	var x, y map[string]string
	return members("device_keys", a, map[string]any{"keys": &x}) == nil &&
		members("device_keys", b, map[string]any{"keys": &y}) == nil && maps.Equal(x, y)
}
