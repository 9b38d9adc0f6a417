package stream

import (
	"context"
	"maps"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/syncapi/storage"
)

// deviceKeys are those of a user's devices that sync here. The map is shared and never changes; a new one takes its
// place. A device that never had keys has nil.
type deviceKeys struct {
	known   map[id.DeviceID]*storage.DeviceKeys
	changed int64 // the last position at which those of any device have
}

func (k *deviceKeys) put(device id.DeviceID, keys *storage.DeviceKeys) {
	known := maps.Clone(k.known)
	if known == nil {
		known = make(map[id.DeviceID]*storage.DeviceKeys)
	}
	known[device] = keys
	k.known = known
}

// forgetKeys makes the keys of a device be read again, or, without one, those of all.
func (h *Hub) forgetKeys(t *storage.Touched) {
	u := h.users[t.User]
	if u == nil {
		return
	}
	u.keys.changed = h.pos
	if t.Device == "" {
		u.keys.known = nil
	} else if _, has := u.keys.known[t.Device]; has {
		u.keys.known = maps.Clone(u.keys.known)
		delete(u.keys.known, t.Device)
	}
}

// keepCommitted remembers what a commit of this process has made of the keys of those who sleep here.
func (h *Hub) keepCommitted(keys []storage.DeviceKeys) {
	for i := range keys {
		if u := h.users[keys[i].UserID]; u != nil && len(u.sleepers) > 0 {
			u.keys.put(keys[i].DeviceID, &keys[i])
		}
	}
}

// Keys are those of a device, as far as LookAs was told that it is looking; nil: it never had any.
func (w *Window) Keys(device id.DeviceID) *storage.DeviceKeys { return w.keys[device] }

// LookAs is Look for a device that sleeps: it tells of its keys, too.
func (h *Hub) LookAs(ctx context.Context, name id.UserID, device id.DeviceID, since, ephemeral int64) (*Window, error) {
	for {
		w, err := h.Look(ctx, name, since, ephemeral)
		if err != nil || device == "" {
			return w, err
		}
		if _, known := w.keys[device]; known {
			return w, nil
		}
		if err := h.loadKeys(ctx, name, device); err != nil {
			return nil, err
		}
	}
}

// loadKeys reads the keys of a device, and keeps them if everything is known since.
func (h *Hub) loadKeys(ctx context.Context, name id.UserID, device id.DeviceID) error {
	known := h.Position()
	keys, at, err := h.o.Storage.DeviceKeysOf(ctx, name, device)
	if err != nil {
		return err
	}
	if err := h.catchUp(ctx, known, at); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if u := h.user(name); max(u.keys.changed, h.floorOf(u)) <= at {
		u.keys.put(device, keys)
	}
	return nil
}
