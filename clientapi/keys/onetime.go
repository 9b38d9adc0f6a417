package keys

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"

	"github.com/matrix-org/dendrite/clientapi/storage"
	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/pdu"
)

// oneTimeKey is a key of an upload. Its form is checked, its signature is not.
type oneTimeKey struct {
	algorithm, id string // the id has the algorithm in it
	json          string
	form          []byte // what is signed; nil: nothing
	signature     string // of the device
}

// Algorithms of keys that other devices agree on secrets with.
const (
	curve       = "curve25519"
	signedCurve = "signed_curve25519"
)

// parseOneTimeKeys reads one_time_keys or fallback_keys. They come in the order of their ids.
func parseOneTimeKeys(what string, user id.UserID, device id.DeviceID, raw json.RawMessage) ([]oneTimeKey, error) {
	if isNull(raw) {
		return nil, nil
	}
	all := make(map[string]json.RawMessage)
	err := httputil.Members(what, raw, func(name string, value json.RawMessage) error {
		all[name] = value
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(all) > MaxOneTimeKeys {
		return nil, mxerr.InvalidParam("%s has %d keys: an upload may have %d", what, len(all), MaxOneTimeKeys)
	}
	parsed := make([]oneTimeKey, 0, len(all))
	for name, value := range all {
		k, err := parseOneTimeKey(user, device, name, value)
		if err != nil {
			return nil, err
		}
		parsed = append(parsed, k)
	}
	slices.SortFunc(parsed, func(a, b oneTimeKey) int { return strings.Compare(a.id, b.id) })
	return parsed, nil
}

func parseOneTimeKey(user id.UserID, device id.DeviceID, name string, raw json.RawMessage) (k oneTimeKey, err error) {
	if k.algorithm, _, err = keyID(name); err != nil {
		return k, err
	}
	k.id = name
	if len(raw) > MaxOneTimeKey {
		return k, mxerr.TooLarge("the key %s has %d bytes: a key may have %d", name, len(raw), MaxOneTimeKey)
	}
	switch {
	case raw[0] == '"' && k.algorithm != signedCurve:
		var key string
		if err := httputil.Unmarshal(raw, &key); err != nil {
			return k, err
		}
		if k.algorithm == curve && publicKey(key) == nil {
			return k, notAKey(name)
		}
		k.json = string(pdu.AppendString(nil, key))
		return k, nil
	case raw[0] != '{':
		return k, mxerr.BadJSON("the key %s must be an object with key and signatures", name)
	}
	whole, err := pdu.SignedForm(raw)
	if err != nil {
		return k, err
	}
	key, has := pdu.String(pdu.Member(whole, "key"))
	if !has {
		return k, mxerr.BadJSON("the key %s has no key", name)
	}
	if (k.algorithm == curve || k.algorithm == signedCurve) && publicKey(key) == nil {
		return k, notAKey(name)
	}
	k.form = pdu.Without(whole, "signatures", "unsigned")
	by := ed + ":" + string(device)
	if k.signature, has = pdu.String(pdu.Member(pdu.Member(pdu.Member(whole, "signatures"), string(user)), by)); !has {
		return k, invalidSignature("the key %s is not signed by your device %s", name, device)
	}
	k.json = string(withSignatures(k.form, []signature{{user, by, k.signature}}))
	return k, nil
}

func notAKey(name string) error {
	return mxerr.InvalidParam("the key %s is not the unpadded base64 of 32 bytes", name)
}

// verify checks the signature with the device's ed25519 key, if the key is of a kind that is signed.
func (k *oneTimeKey) verify(public string) error {
	if k.form != nil && !signed(k.form, public, k.signature) {
		return invalidSignature("the signature of the key %s is not that of your device", k.id)
	}
	return nil
}

// sameKey tells whether two keys differ in nothing but signatures, which are not the same each time that some
// clients sign.
func sameKey(a, b string) bool {
	return a == b || a[0] == '{' && b[0] == '{' &&
		string(pdu.Without([]byte(a), "signatures")) == string(pdu.Without([]byte(b), "signatures"))
}

// batches makes what is stored of keys that are uploaded together: one batch, unless most of it were spaces. Numbers
// count on from those that the pool has.
func batches(pool *storage.KeyPool, keys []*oneTimeKey) []storage.KeyBatch {
	const spaces = 4096
	var all []storage.KeyBatch
	var slots [][]byte
	var width, size int
	end := func() {
		b := storage.KeyBatch{Pool: pool.NID, First: pool.Uploaded + 1, Last: pool.Uploaded + int64(len(slots)),
			Width: int64(width), Slots: bytes.Repeat([]byte{' '}, width*len(slots))}
		for i, slot := range slots {
			copy(b.Slots[i*width:], slot)
		}
		all, pool.Uploaded = append(all, b), b.Last
		slots, width, size = nil, 0, 0
	}
	for _, k := range keys {
		slot := append(append(pdu.AppendString(make([]byte, 0, len(k.id)+len(k.json)+3), k.id), ':'), k.json...)
		if max(width, len(slot))*(len(slots)+1) > 2*(size+len(slot))+spaces {
			end()
		}
		slots = append(slots, slot)
		width, size = max(width, len(slot)), size+len(slot)
	}
	end()
	return all
}

// member is the object that a claim answers with for a slot.
func member(slot []byte) []byte {
	slot = bytes.TrimRight(slot, " ")
	return append(append(append(make([]byte, 0, len(slot)+2), '{'), slot...), '}')
}

// find returns those keys of batches whose ids others have, by the ids.
func find(batches []storage.KeyBatch, wanted []oneTimeKey) map[string]string {
	found := make(map[string]string)
	ids := make(map[string]bool, len(wanted))
	for i := range wanted {
		ids[wanted[i].id] = true
	}
	for _, b := range batches {
		for slot := range slices.Chunk(b.Slots, int(b.Width)) {
			pdu.EachMember(member(slot), func(name string, key []byte) {
				if ids[name] {
					found[name] = string(key)
				}
			})
		}
	}
	return found
}

// members reads members of an object that others will see, each by its exact name: to encoding/json, "Keys" were keys
// too, and others would see what was not checked.
func members(what string, raw json.RawMessage, into map[string]any) error {
	var all map[string]json.RawMessage
	if err := object(what, raw, &all); err != nil {
		return err
	}
	for name, target := range into {
		if value, has := all[name]; has && json.Unmarshal(value, target) != nil {
			return mxerr.BadJSON("%s of %.300s has not the form that it must have", name, what)
		}
	}
	return nil
}

// object reads a part of a body that must be an object.
func object(what string, raw json.RawMessage, into any) error {
	if raw[0] != '{' {
		return mxerr.BadJSON("%s must be an object", what)
	}
	return httputil.Unmarshal(raw, into)
}
