package keys

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/matrix-org/dendrite/clientapi/storage"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/pdu"
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
	return &Keys{Devices: make(map[id.UserID]map[id.DeviceID]json.RawMessage), Master: make(map[id.UserID]json.RawMessage),
		SelfSigning: make(map[id.UserID]json.RawMessage), UserSigning: make(map[id.UserID]json.RawMessage)}
}

// Query returns keys of users of any server for a local viewer (§ POST /keys/query): of the devices that are named, or of all
// where none is. Users without devices that
// have keys have an empty map: clients would ask for them again and again. M_INVALID_PARAM for what asks too much.
func (s *Service) Query(ctx context.Context, viewer id.UserID, timeout time.Duration, asked map[id.UserID][]id.DeviceID) (*Keys, Unreachable, error) {
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
	failures := askAll(ctx, timeout, servers, ask, func(k *Keys) {
		maps.Copy(found.Devices, k.Devices)
		maps.Copy(found.Master, k.Master)
		maps.Copy(found.SelfSigning, k.SelfSigning)
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
	for _, only := range asked {
		slices.Sort(only)
	}
	var devices []storage.DeviceKeys
	var cross []storage.CrossSigningKey
	var added []storage.Signature
	var exist []id.UserID
	err := s.db().Read(ctx, "query keys", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
		if devices, err = s.Store.UsersDeviceKeys(ctx, tx, users); err != nil {
			return err
		}
		if cross, err = s.Store.CrossSigningKeys(ctx, tx, users); err != nil {
			return err
		}
		if viewer == "" {
			if found.StreamIDs, err = s.Store.StreamIDs(ctx, tx, users); err != nil {
				return err
			}
		}
		if added, err = s.Store.Signatures(ctx, tx, users, viewer); err != nil {
			return err
		}
		has := make(map[id.UserID]bool)
		for i := range devices {
			has[devices[i].UserID] = true
		}
		exist = nil
		if without := slices.DeleteFunc(slices.Clone(users), func(u id.UserID) bool { return has[u] }); len(without) > 0 {
			exist, err = s.Store.ExistingUsers(ctx, tx, without)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("query keys of %d users: %w", len(users), err)
	}
	type place struct {
		user id.UserID
		name string
	}
	on := make(map[place][]signature, len(added))
	for i := range added {
		g := &added[i]
		at := place{g.UserID, g.KeyID}
		on[at] = append(on[at], signature{g.Signer, ed + ":" + g.SignerKey, g.Signature})
	}
	signatures := func(user id.UserID, name, by, own string) []signature {
		all := on[place{user, name}]
		if own != "" {
			all = append(all, signature{user, ed + ":" + by, own})
		}
		slices.SortFunc(all, func(a, b signature) int { return cmp.Or(cmp.Compare(a.user, b.user), cmp.Compare(a.key, b.key)) })
		return all
	}
	for _, user := range exist {
		found.Devices[user] = make(map[id.DeviceID]json.RawMessage)
	}
	for i := range devices {
		d := &devices[i]
		if found.Devices[d.UserID] == nil {
			found.Devices[d.UserID] = make(map[id.DeviceID]json.RawMessage)
		}
		if only := asked[d.UserID]; len(only) > 0 {
			if _, has := slices.BinarySearch(only, d.DeviceID); !has {
				continue
			}
		}
		name := string(d.DeviceID)
		found.Devices[d.UserID][d.DeviceID] = withSignatures([]byte(d.JSON), signatures(d.UserID, name, name, d.Signature), unsigned(d.DisplayName)...)
	}
	masters := make(map[id.UserID]string)
	for i := range cross {
		if cross[i].Usage == Master {
			masters[cross[i].UserID] = cross[i].PublicKey
		}
	}
	for i := range cross {
		k := &cross[i]
		object := withSignatures([]byte(k.JSON), signatures(k.UserID, k.PublicKey, masters[k.UserID], k.Signature))
		switch {
		case k.Usage == Master:
			found.Master[k.UserID] = object
		case k.Usage == SelfSigning:
			found.SelfSigning[k.UserID] = object
		case k.UserID == viewer:
			found.UserSigning[k.UserID] = object
		}
	}
	return found, nil
}

// unsigned is what the server adds to the keys of a device.
func unsigned(displayName string) []byte {
	out := []byte(`,"unsigned":{`)
	if displayName != "" {
		out = pdu.AppendString(append(out, `"device_display_name":`...), displayName)
	}
	return append(out, '}')
}
