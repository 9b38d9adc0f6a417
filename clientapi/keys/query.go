package keys

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/matrix-org/dendrite/clientapi/storage"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// Keys are those of users, as JSON objects with the signatures that a viewer may see.
type Keys struct {
	Devices     map[id.UserID]map[id.DeviceID]json.RawMessage
	Master      map[id.UserID]json.RawMessage
	SelfSigning map[id.UserID]json.RawMessage
	UserSigning map[id.UserID]json.RawMessage
	// StreamIDs are those of the last announcements; of local users only, and only for other servers.
	StreamIDs map[id.UserID]int64
}

func newKeys() *Keys {
	return &Keys{Devices: make(map[id.UserID]map[id.DeviceID]json.RawMessage),
		Master: make(map[id.UserID]json.RawMessage), SelfSigning: make(map[id.UserID]json.RawMessage),
		UserSigning: make(map[id.UserID]json.RawMessage), StreamIDs: make(map[id.UserID]int64)}
}

// Query returns keys of users of any server for a local viewer (§ POST /keys/query): of the devices that are named,
// or of all where none is. Users without devices that have keys have an empty map: clients would ask for them again
// and again. M_INVALID_PARAM for what asks too much.
func (s *Service) Query(ctx context.Context, viewer id.UserID, timeout time.Duration,
	asked map[id.UserID][]id.DeviceID) (*Keys, Unreachable, error) {
	named := 0
	for user, devices := range asked {
		if _, err := id.ParseUserID(string(user)); err != nil {
			return nil, nil, mxerr.InvalidParam("device_keys: %v", err)
		}
		named += len(devices)
	}
	if len(asked) > MaxQueryUsers || named > MaxQueryDevices {
		return nil, nil, mxerr.InvalidParam("a query may name %d users and %d devices", MaxQueryUsers, MaxQueryDevices)
	}
	servers := apart(asked)
	local := servers[s.Server]
	delete(servers, s.Server)
	found, err := s.QueryLocal(ctx, viewer, local)
	if err != nil {
		return nil, nil, err
	}
	var ask func(context.Context, id.ServerName, map[id.UserID][]id.DeviceID) (*Keys, error)
	if s.Elsewhere != nil {
		ask = s.Elsewhere.QueryKeys
	}
	failures := askAll(ctx, timeout, servers, ask, func(users map[id.UserID][]id.DeviceID, k *Keys) {
		copyAsked(found.Devices, k.Devices, users)
		copyAsked(found.Master, k.Master, users)
		copyAsked(found.SelfSigning, k.SelfSigning, users)
	})
	return found, failures, nil
}

// QueryLocal returns keys of local users, for a viewer; empty for other servers, which get stream ids too.
func (s *Service) QueryLocal(ctx context.Context, viewer id.UserID, asked map[id.UserID][]id.DeviceID) (*Keys, error) {
	found := newKeys()
	if len(asked) == 0 {
		return found, nil
	}
	users := slices.Sorted(maps.Keys(asked))
	all, private, err := s.seen(ctx, viewer, users)
	if err != nil {
		return nil, err
	}
	for user, p := range all {
		found.Devices[user] = p.devices
		if only := asked[user]; len(only) > 0 {
			found.Devices[user] = make(map[id.DeviceID]json.RawMessage)
			for _, device := range only {
				if keys, has := p.devices[device]; has {
					found.Devices[user][device] = keys
				}
			}
		}
		if p.master != nil {
			found.Master[user] = p.master
		}
		if p.self != nil {
			found.SelfSigning[user] = p.self
		}
		if viewer == "" && p.streamID > 0 {
			found.StreamIDs[user] = p.streamID
		}
	}
	type place struct {
		user id.UserID
		name string
	}
	on := make(map[place][]signature)
	for _, g := range private {
		on[place{g.UserID, g.KeyID}] = append(on[place{g.UserID, g.KeyID}], signature{g.Signer, ed + ":" + g.SignerKey,
			g.Signature})
	}
	cloned := make(map[id.UserID]bool)
	for at, signatures := range on {
		p := all[at.user]
		if p == nil {
			continue
		}
		o, has := p.objects[at.name]
		_, shown := found.Devices[at.user][id.DeviceID(at.name)]
		switch {
		case !has:
		case at.name == p.masterKey:
			found.Master[at.user] = o.json(signatures...)
		case shown:
			if !cloned[at.user] {
				cloned[at.user] = true
				found.Devices[at.user] = maps.Clone(found.Devices[at.user])
			}
			found.Devices[at.user][id.DeviceID(at.name)] = o.json(signatures...)
		}
	}
	if p := all[viewer]; p != nil && p.master != nil {
		return found, s.addUserSigning(ctx, viewer, p.masterKey, found)
	}
	return found, nil
}

// seen returns what everybody sees of users, and the signatures that only the viewer sees.
func (s *Service) seen(ctx context.Context, viewer id.UserID, users []id.UserID) (map[id.UserID]*published,
	[]storage.Signature, error) {
	kept, known := make([]*published, len(users)), make([]int64, len(users))
	for i, user := range users {
		if p, has := s.published.Get(user); has {
			kept[i], known[i] = p, p.streamID
		}
	}
	var moved map[id.UserID]int64
	var private []storage.Signature
	err := s.db().ReadOne(ctx, "changes of keys", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
		moved, private, err = s.Store.ChangesAndPrivate(ctx, tx, users, known, viewer)
		return err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("look for changes of keys of %d users: %w", len(users), err)
	}
	all := make(map[id.UserID]*published, len(users))
	var changed []id.UserID
	for i, user := range users {
		if _, has := moved[user]; !has && kept[i] != nil {
			all[user] = kept[i]
		} else {
			changed = append(changed, user)
		}
	}
	if len(changed) == 0 {
		return all, private, nil
	}
	fresh, err := s.publish(ctx, changed)
	if err != nil {
		return nil, nil, err
	}
	maps.Copy(all, fresh)
	return all, private, nil
}

// addUserSigning adds what only its user sees.
func (s *Service) addUserSigning(ctx context.Context, user id.UserID, master string, found *Keys) error {
	var cross []storage.CrossSigningKey
	err := s.db().ReadOne(ctx, "user-signing key", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
		cross, err = s.Store.CrossSigningKeys(ctx, tx, []id.UserID{user})
		return err
	})
	if err != nil {
		return fmt.Errorf("read the user-signing key of %s: %w", user, err)
	}
	for i := range cross {
		if k := &cross[i]; k.Usage == UserSigning {
			found.UserSigning[user] = withSignatures([]byte(k.JSON), []signature{{user, ed + ":" + master, k.Signature}})
		}
	}
	return nil
}
