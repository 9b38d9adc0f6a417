package keys

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/matrix-org/dendrite/clientapi/storage"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// Failures says for keys of users why they, or signatures on them, were not taken.
type Failures map[id.UserID]map[string]*mxerr.Error

func (f Failures) add(user id.UserID, name string, err error) error {
	e, is := mxerr.As(err)
	if !is {
		return err
	}
	if f[user] == nil {
		f[user] = make(map[string]*mxerr.Error)
	}
	f[user][name] = e
	return nil
}

// checkedSignature is a signature that is right for a key that was signed, and one that signs.
type checkedSignature struct {
	storage.Signature
	kind         string // of the key that was signed
	form, public string
}

// What a signature is good for (§ Key and signature security): by the kind of the key that is signed, and that
// which signs. Whether the key is one's own follows: devices and cross-signing keys sign those of their user, only
// user-signing keys do not.
type visibility int

const (
	forbidden visibility = iota
	inherent             // it is part of the key
	toSigner             // nobody else sees it
	toEverybody
)

func see(signed, signer string, own bool) visibility {
	switch {
	case !own && signed == Master && signer == UserSigning:
		return toSigner
	case !own:
		return forbidden
	case signed == device && signer == SelfSigning, signed == Master && signer == device:
		return toEverybody
	case signed == device && signer == Master:
		return toSigner
	case signer == Master: // of cross-signing keys
		return inherent
	}
	return forbidden
}

// UploadSignatures adds signatures that a user has made to keys of their own or of others: for users and ids of
// keys, the keys with the signatures (§ POST /keys/signatures/upload). It tells which of them failed, and why; the
// others are kept.
func (s *Service) UploadSignatures(ctx context.Context, user id.UserID,
	body map[id.UserID]map[string]json.RawMessage) (Failures, error) {
	var others []id.UserID
	n := 0
	for owner, objects := range body {
		if objects == nil {
			return nil, mxerr.BadJSON("the keys of %.80q must be an object", owner)
		}
		for name, object := range objects {
			if len(object) == 0 || object[0] != '{' {
				return nil, mxerr.BadJSON("the key %.80q of %.80q must be an object", name, owner)
			}
			n++
		}
		if len(objects) > 0 && owner != user && owner.Server() == s.Server && isName(string(owner)) {
			others = append(others, owner)
		}
	}
	if n > MaxSignedKeys {
		return nil, mxerr.InvalidParam("there are %d keys: a request may have %d", n, MaxSignedKeys)
	}
	var known ring
	err := s.db().Read(ctx, "keys to sign", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
		known, err = s.ring(ctx, tx, user, others...)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the keys that %s signs: %w", user, err)
	}
	failures := make(Failures)
	var good []checkedSignature
	for owner, objects := range body {
		for name, object := range objects {
			checked, err := checkSignatures(known, user, owner, name, object)
			good = append(good, checked...)
			if err != nil {
				if err := failures.add(owner, name, err); err != nil {
					return nil, err
				}
			}
		}
	}
	if len(good) == 0 {
		return failures, nil
	}
	err = s.db().Write(ctx, "upload signatures", func(ctx context.Context, tx *sqlutil.Tx) error {
		return s.sign(ctx, tx, user, good)
	})
	if err != nil {
		return nil, fmt.Errorf("upload signatures of %s: %w", user, err)
	}
	return failures, nil
}

// checkSignatures returns the new signatures of a user that are right, of those on a key, and an error if any is not.
func checkSignatures(known ring, user, owner id.UserID, name string, object json.RawMessage) ([]checkedSignature,
	error) {
	target, has := known[owner][name]
	if !has {
		return nil, mxerr.NotFound("%s has no key %.80q that you can sign", owner, name)
	}
	form, err := form("a signed key", object, MaxIdentity)
	if err != nil {
		return nil, err
	}
	if string(form) != target.form {
		return nil, mxerr.InvalidParam("the key is not the one that the server has: query it, and sign that")
	}
	var all signatures
	if err := members("a signed key", object, map[string]any{"signatures": &all}); err != nil {
		return nil, err
	}
	mine := all[user]
	if len(mine) == 0 {
		return nil, invalidSignature("there is no signature of yours")
	}
	if len(mine) > MaxKeySignatures {
		return nil, mxerr.InvalidParam("a key may have %d of your signatures", MaxKeySignatures)
	}
	var good []checkedSignature
	var failed error
	for by, signature := range mine {
		checked, err := checkSignature(known[user], target, owner == user, by, signature)
		if err != nil {
			failed = err
		}
		if checked != nil {
			checked.UserID, checked.KeyID, checked.Signer = owner, name, user
			good = append(good, *checked)
		}
	}
	return good, failed
}

// checkSignature checks a signature by a key of one's own. It returns nil for one that is part of the key anyhow.
func checkSignature(mine map[string]key, target key, own bool, by, signature string) (*checkedSignature, error) {
	name, isEd := strings.CutPrefix(by, ed+":")
	signer, has := mine[name]
	if !isEd || !has {
		return nil, mxerr.NotFound("you have no key %.80q", by)
	}
	if !signed([]byte(target.form), signer.public, signature) {
		return nil, invalidSignature("the signature of %s is wrong", by)
	}
	may := see(target.kind, signer.kind, own)
	switch {
	case may == inherent, own && signer == target:
		return nil, nil
	case may == forbidden:
		return nil, mxerr.Forbidden("keys of this kind are not signed with %s", by)
	}
	return &checkedSignature{Signature: storage.Signature{SignerKey: name, Signature: signature,
		OnlySigner: may == toSigner},
		kind: target.kind, form: target.form, public: signer.public}, nil
}

// sign stores signatures of a user that were checked, and tells those who see them.
func (s *Service) sign(ctx context.Context, tx *sqlutil.Tx, user id.UserID, good []checkedSignature) error {
	added, err := s.putSignatures(ctx, tx, user, good)
	if err != nil {
		return err
	}
	var devices []id.DeviceID
	var quietly []id.UserID
	seen := make(map[id.DeviceID]bool)
	for _, g := range added {
		changed := id.DeviceID("")
		if g.kind == device {
			changed = id.DeviceID(g.KeyID)
		}
		switch {
		case g.OnlySigner:
			quietly = append(quietly, g.UserID)
		case !seen[changed]:
			seen[changed] = true
			devices = append(devices, changed)
		}
	}
	s.announceSigned(ctx, tx, user, quietly)
	return s.announce(ctx, tx, user, false, devices...)
}

// putSignatures stores those of the signatures of a user that are new, if the keys are still those for which they
// were checked.
func (s *Service) putSignatures(ctx context.Context, tx *sqlutil.Tx, user id.UserID,
	good []checkedSignature) ([]checkedSignature, error) {
	if len(good) == 0 {
		return nil, nil
	}
	if err := s.lock(ctx, tx, user); err != nil {
		return nil, err
	}
	owners := make(map[id.UserID]bool)
	var all, others []id.UserID
	for i := range good {
		if owner := good[i].UserID; !owners[owner] {
			owners[owner] = true
			all = append(all, owner)
			if owner != user {
				others = append(others, owner)
			}
		}
	}
	now, err := s.ring(ctx, tx, user, others...)
	if err != nil {
		return nil, fmt.Errorf("read the keys again: %w", err)
	}
	there, err := s.Store.Signatures(ctx, tx, all, user)
	if err != nil {
		return nil, fmt.Errorf("read signatures: %w", err)
	}
	type place struct {
		owner     id.UserID
		name, key string
	}
	has := make(map[place]bool)
	for _, g := range there {
		if g.Signer == user {
			has[place{g.UserID, g.KeyID, g.SignerKey}] = true
		}
	}
	var added []checkedSignature
	var rows []storage.Signature
	for _, g := range good {
		if now[g.UserID][g.KeyID].form == g.form && now[user][g.SignerKey].public == g.public && !has[place{g.UserID,
			g.KeyID, g.SignerKey}] {
			added, rows = append(added, g), append(rows, g.Signature)
		}
	}
	if _, err := s.Store.PutSignatures(ctx, tx, rows); err != nil {
		return nil, fmt.Errorf("store signatures: %w", err)
	}
	return added, nil
}

// ownSignatures checks the signatures that a key which is uploaded has of other keys of its user. Those of keys
// that the server does not know, and those that nobody would see, are left out.
func ownSignatures(known ring, user id.UserID, name string, target key, all signatures) ([]checkedSignature, error) {
	if len(all[user]) > MaxKeySignatures {
		return nil, mxerr.InvalidParam("a key may have %d of your signatures", MaxKeySignatures)
	}
	var good []checkedSignature
	for by, signature := range all[user] {
		checked, err := checkSignature(known[user], target, true, by, signature)
		if mxerr.Is(err, "M_NOT_FOUND") || mxerr.Is(err, "M_FORBIDDEN") {
			continue
		}
		if err != nil {
			return nil, err
		}
		if checked != nil {
			checked.UserID, checked.KeyID, checked.Signer = user, name, user
			good = append(good, *checked)
		}
	}
	return good, nil
}
