package keys

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/matrix-org/dendrite/clientapi/storage"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/lru"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// publishedBytes is what may be kept of users' keys in memory.
const publishedBytes = 32 << 20

// published is what everybody sees of a user's keys. Each change of it is announced, so it stays right as long as
// nothing else was. It is shared, and never written to.
type published struct {
	streamID     int64 // of the last announcement
	devices      map[id.DeviceID]json.RawMessage
	objects      map[string]signedObject // by key id: what private signatures can be added to
	master, self json.RawMessage
	masterKey    string
	size         int
}

// signedObject is what an object is made of.
type signedObject struct {
	form       []byte
	signatures []signature
	more       []byte
}

func (o *signedObject) json(private ...signature) json.RawMessage {
	all := slices.Concat(o.signatures, private)
	slices.SortFunc(all, func(a, b signature) int {
		if c := strings.Compare(string(a.user), string(b.user)); c != 0 {
			return c
		}
		return strings.Compare(a.key, b.key)
	})
	return withSignatures(o.form, all, o.more...)
}

func newPublished() *lru.Cache[id.UserID, *published] {
	return lru.New(publishedBytes, func(user id.UserID, p *published) int { return len(user) + p.size + 300 })
}

// publish reads what everybody sees of users' keys. Users without an account are left out.
func (s *Service) publish(ctx context.Context, users []id.UserID) (map[id.UserID]*published, error) {
	var streams map[id.UserID]int64
	var devices []storage.DeviceKeys
	var cross []storage.CrossSigningKey
	var added []storage.Signature
	var bare []id.UserID
	err := s.db().Read(ctx, "keys of users", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
		if streams, err = s.Store.StreamIDs(ctx, tx, users); err != nil {
			return err
		}
		bare = slices.DeleteFunc(slices.Clone(users), func(u id.UserID) bool { return streams[u] > 0 })
		if len(bare) > 0 { // nothing was ever told of them: they have no keys, and perhaps no account
			if bare, err = s.Store.ExistingUsers(ctx, tx, bare); err != nil || len(streams) == 0 {
				return err
			}
		}
		if devices, err = s.Store.UsersDeviceKeys(ctx, tx, users); err != nil {
			return err
		}
		if cross, err = s.Store.CrossSigningKeys(ctx, tx, users); err != nil {
			return err
		}
		added, err = s.Store.Signatures(ctx, tx, users, "")
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read keys of %d users: %w", len(users), err)
	}
	all := make(map[id.UserID]*published, len(users))
	for _, user := range bare {
		all[user] = &published{}
	}
	for user, n := range streams {
		all[user] = &published{streamID: n, devices: make(map[id.DeviceID]json.RawMessage),
			objects: make(map[string]signedObject)}
	}
	on := make(map[id.UserID]map[string][]signature)
	for i := range added {
		g := &added[i]
		if on[g.UserID] == nil {
			on[g.UserID] = make(map[string][]signature)
		}
		on[g.UserID][g.KeyID] = append(on[g.UserID][g.KeyID], signature{g.Signer, ed + ":" + g.SignerKey, g.Signature})
	}
	for i := range devices {
		if d := &devices[i]; all[d.UserID] != nil {
			name := string(d.DeviceID)
			signatures := append(on[d.UserID][name], signature{d.UserID, ed + ":" + name, d.Signature})
			all[d.UserID].devices[d.DeviceID] = all[d.UserID].add(name, signedObject{[]byte(d.JSON), signatures,
				unsigned(d.DisplayName)})
		}
	}
	// The master key is the first.
	slices.SortFunc(cross, func(a, b storage.CrossSigningKey) int { return strings.Compare(a.Usage, b.Usage) })
	for i := range cross {
		k := &cross[i]
		p := all[k.UserID]
		switch {
		case p == nil:
		case k.Usage == Master:
			p.masterKey = k.PublicKey
			p.master = p.add(k.PublicKey, signedObject{form: []byte(k.JSON), signatures: on[k.UserID][k.PublicKey]})
		case k.Usage == SelfSigning:
			p.self = p.add(k.PublicKey, signedObject{form: []byte(k.JSON), signatures: []signature{{k.UserID,
				ed + ":" + p.masterKey, k.Signature}}})
		}
	}
	for user, p := range all {
		s.published.Add(user, p)
	}
	return all, nil
}

// add keeps an object, and returns it as everybody sees it.
func (p *published) add(name string, o signedObject) json.RawMessage {
	made := o.json()
	p.objects[name] = o
	p.size += 3*len(made) + 300 // about
	return made
}

// unsigned is what the server adds to the keys of a device.
func unsigned(displayName string) []byte {
	out := []byte(`,"unsigned":{`)
	if displayName != "" {
		out = pdu.AppendString(append(out, `"device_display_name":`...), displayName)
	}
	return append(out, '}')
}
