package keys

import (
	"encoding/json"

	"github.com/matrix-org/dendrite/common/mxerr"
)

// CheckDehydrated fails for an upload that cannot be that of a dehydrated device (MSC3814, § Dehydrating a device):
// others must see that it is one and that its user has signed it, and have a key to write to it however late.
// M_INVALID_PARAM.
func (c *Checked) CheckDehydrated() error {
	if c.identity == nil {
		return mxerr.BadJSON("device_keys must be an object")
	}
	var dehydrated json.RawMessage
	var keys map[string]string
	if err := members("device_keys", c.identity.form, map[string]any{"dehydrated": &dehydrated,
		"keys": &keys}); err != nil {
		return err
	}
	signed := false
	for i := range c.signatures {
		signed = signed || !c.signatures[i].OnlySigner
	}
	switch {
	case keys[curve+":"+string(c.device)] != string(c.device):
		return mxerr.InvalidParam("device_id must be the %s key of the device, as unpadded base64", curve)
	case string(dehydrated) != "true":
		return mxerr.InvalidParam("device_keys must have dehydrated, which is true, so that others know what the device is")
	case !signed:
		return mxerr.InvalidParam("device_keys must be signed with your self-signing key: upload cross-signing keys first")
	case len(c.fallback) == 0:
		return mxerr.InvalidParam("fallback_keys must have a key: nobody is there to upload one-time keys later")
	}
	return nil
}
