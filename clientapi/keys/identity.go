package keys

import (
	"encoding/json"

	"github.com/matrix-org/dendrite/common/httputil"
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
		UserID     *id.UserID        `json:"user_id"`
		DeviceID   *id.DeviceID      `json:"device_id"`
		Algorithms []string          `json:"algorithms"`
		Keys       map[string]string `json:"keys"`
		Signatures signatures        `json:"signatures"`
	}
	if err := object("device_keys", raw, &body); err != nil {
		return nil, err
	}
	switch {
	case body.UserID == nil || body.DeviceID == nil || body.Algorithms == nil || body.Keys == nil ||
		body.Signatures == nil:
		return nil, mxerr.BadJSON("device_keys must have user_id, device_id, algorithms, keys and signatures")
	case *body.UserID != user || *body.DeviceID != device:
		return nil, mxerr.InvalidParam("device_keys are not of your device: they must have user_id %s and device_id %s", user, device)
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
	var x, y struct {
		Keys map[string]string `json:"keys"`
	}
	if httputil.Unmarshal(a, &x) != nil || httputil.Unmarshal(b, &y) != nil || len(x.Keys) != len(y.Keys) {
		return false
	}
	for name, key := range x.Keys {
		if y.Keys[name] != key {
			return false
		}
	}
	return true
}
