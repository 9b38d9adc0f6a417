package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// keysAtOnce is how many one-time keys an upload has: as many as clients keep on the server.
const keysAtOnce = 50

// keysUpload has new devices upload their keys, with one-time keys, and then as many one-time keys again.
func keysUpload(t *target, rec *recorder) (map[string]float64, error) {
	users, err := t.registerMany(8 * t.concurrency)
	if err != nil {
		return nil, err
	}
	type device struct {
		*identity
		first, second json.RawMessage
	}
	devices := make([]device, len(users))
	err = each(len(users), func(n int) (err error) {
		i := newIdentity(users[n])
		devices[n].identity = i
		first := object{"device_keys": i.deviceKeys(), "one_time_keys": i.oneTimeKeys(keysAtOnce)}
		devices[n].first, err = json.Marshal(first)
		if err == nil {
			devices[n].second, err = json.Marshal(object{"one_time_keys": i.oneTimeKeys(keysAtOnce)})
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	rec.start()
	err = each(len(devices), func(n int) error {
		for i, body := range []json.RawMessage{devices[n].first, devices[n].second} {
			began := time.Now()
			if err := devices[n].upload(body, (i+1)*keysAtOnce); err != nil {
				return err
			}
			rec.took(time.Since(began))
		}
		return nil
	})
	rec.stop()
	return rec.rate("uploads"), err
}

// keyHolders are users of whom each has a device with keys that its user has signed, and their places in /sync; and
// one user more.
type keyHolders struct {
	*user
	all   []*identity
	since []string
}

func (t *target) keyHolders() (*keyHolders, error) {
	return once(t, "key holders", func() (*keyHolders, error) {
		users, err := t.registerMany(t.listeners + 1)
		if err != nil {
			return nil, err
		}
		h := &keyHolders{users[0], make([]*identity, t.listeners), make([]string, t.listeners)}
		return h, each(t.listeners, func(n int) error {
			h.all[n] = newIdentity(users[n+1])
			if err := h.all[n].publish(); err != nil {
				return err
			}
			r, _, err := h.all[n].sync(context.Background(), "", 0)
			h.since[n] = r.NextBatch
			return err
		})
	})
}

// keysQuery asks for the keys of all key holders.
func keysQuery(t *target, rec *recorder) (map[string]float64, error) {
	h, err := t.keyHolders()
	if err != nil {
		return nil, err
	}
	of := object{}
	for _, i := range h.all {
		of[i.id] = []string{}
	}
	rec.load(4, t.duration, func(int) error {
		var r struct {
			Devices map[string]map[string]json.RawMessage `json:"device_keys"`
			Masters map[string]json.RawMessage            `json:"master_keys"`
			Selves  map[string]json.RawMessage            `json:"self_signing_keys"`
		}
		if err := h.post("/keys/query", object{"device_keys": of}, &r); err != nil {
			return err
		}
		for _, i := range h.all {
			if r.Devices[i.id][i.user.device] == nil || r.Masters[i.id] == nil || r.Selves[i.id] == nil {
				return fmt.Errorf("/keys/query left out keys of %s", i.id)
			}
		}
		return nil
	})
	return rec.rate("queries"), nil
}

// keysClaim claims a key of every key holder at a time, until all are given that were uploaded before.
func keysClaim(t *target, rec *recorder) (map[string]float64, error) {
	h, err := t.keyHolders()
	if err != nil {
		return nil, err
	}
	err = each(len(h.all), func(n int) error {
		return h.all[n].upload(object{"one_time_keys": h.all[n].oneTimeKeys(keysAtOnce)}, keysAtOnce)
	})
	if err != nil {
		return nil, err
	}
	of := object{}
	for _, i := range h.all {
		of[i.id] = object{i.user.device: "signed_curve25519"}
	}
	var mu sync.Mutex
	given := map[string]bool{}
	rec.start()
	err = each(keysAtOnce, func(int) error {
		var r struct {
			Keys map[string]map[string]map[string]json.RawMessage `json:"one_time_keys"`
		}
		began := time.Now()
		if err := h.post("/keys/claim", object{"one_time_keys": of}, &r); err != nil {
			return err
		}
		rec.took(time.Since(began))
		mu.Lock()
		defer mu.Unlock()
		for _, i := range h.all {
			keys := r.Keys[i.id][i.user.device]
			if len(keys) != 1 {
				return fmt.Errorf("/keys/claim gave %d keys of %s", len(keys), i.id)
			}
			for id := range keys {
				if given[i.id+id] {
					return fmt.Errorf("/keys/claim gave %s of %s twice", id, i.id)
				}
				given[i.id+id] = true
			}
		}
		return nil
	})
	rec.stop()
	return rec.rate("claims"), err
}

// sendToAll sends every key holder's device a message of its own, as when a room key is shared.
func (h *keyHolders) sendToAll() error {
	messages := object{}
	for _, i := range h.all {
		messages[i.id] = object{i.user.device: object{
			"algorithm": "m.olm.v1.curve25519-aes-sha2", "sender_key": h.all[0].agreement,
			"ciphertext": object{i.agreement: object{"type": 0, "body": random(1024)}},
		}}
	}
	path := fmt.Sprintf("/_matrix/client/v3/sendToDevice/m.room.encrypted/%s-%d", h.t.id, h.txn.Add(1))
	_, err := h.t.call(context.Background(), "PUT", path, h.token, object{"messages": messages}, nil)
	return err
}

// receive has all key holders sync until each has as many messages as were sent, and has acknowledged them. took is
// told how long each /sync took.
func (h *keyHolders) receive(sent int, took func(time.Duration)) error {
	return each(len(h.all), func(n int) error {
		late := time.Now().Add(15 * time.Second)
		for got, acknowledged := 0, false; !acknowledged; {
			began := time.Now()
			r, _, err := h.all[n].sync(context.Background(), h.since[n], 0)
			if err != nil {
				return err
			}
			took(time.Since(began))
			acknowledged = got == sent
			got += len(r.ToDevice.Events)
			h.since[n] = r.NextBatch
			if got > sent || got < sent && time.Now().After(late) {
				return fmt.Errorf("%d of %d messages reached the device of %s", got, sent, h.all[n].id)
			}
		}
		return nil
	})
}

// toDevice sends messages to the devices of all key holders, and lets these have them when the time is over.
func toDevice(t *target, rec *recorder) (map[string]float64, error) {
	h, err := t.keyHolders()
	if err != nil {
		return nil, err
	}
	var sent atomic.Int64
	rec.load(4, t.duration, func(int) error {
		err := h.sendToAll()
		if err == nil {
			sent.Add(1)
		}
		return err
	})
	return rec.rate("puts"), h.receive(int(sent.Load()), func(time.Duration) {})
}

// waitingMessages is how many messages each device has to get: they fit into one answer.
const waitingMessages = 40

// toDeviceSync has all key holders get what was sent to their devices before.
func toDeviceSync(t *target, rec *recorder) (map[string]float64, error) {
	h, err := t.keyHolders()
	if err != nil {
		return nil, err
	}
	if err := each(waitingMessages, func(int) error { return h.sendToAll() }); err != nil {
		return nil, err
	}
	rec.start()
	err = h.receive(waitingMessages, rec.took)
	rec.stop()
	figures := rec.latency()
	if figures != nil {
		figures["messages/s"] = float64(waitingMessages*len(h.all)) / rec.elapsed.Seconds()
	}
	return figures, err
}

// deviceLists has members of a room rename their devices in turn, and all others wait in /sync for the news that the
// list of somebody's devices has changed.
func deviceLists(t *target, rec *recorder) (map[string]float64, error) {
	const renaming = 8
	g, err := once(t, "watchers", func() (*group, error) {
		g, err := t.group("watched room", t.listeners+renaming)
		if err != nil {
			return nil, err
		}
		return g, each(renaming, func(n int) error {
			i := newIdentity(g.users[n])
			return i.upload(object{"device_keys": i.deviceKeys()}, 0)
		})
	})
	if err != nil {
		return nil, err
	}
	watchers := g.users[renaming:]
	since := make([]string, len(watchers))
	err = each(len(watchers), func(n int) error {
		r, _, err := watchers[n].sync(context.Background(), "", 0)
		since[n] = r.NextBatch
		return err
	})
	if err != nil {
		return nil, err
	}
	changes := news{func(n int) (string, error) {
		u := g.users[n%renaming]
		name := fmt.Sprintf("renamed %d times", u.txn.Add(1))
		_, err := t.call(context.Background(), "PUT", "/_matrix/client/v3/devices/"+url.PathEscape(u.device), u.token,
			object{"display_name": name}, nil)
		return u.id, err
	}, func(r *syncResponse) []string { return r.DeviceLists.Changed }}
	if deliver(t, rec, changes, watchers, since, &recorder{t: t}) == 0 {
		return nil, errors.New("no change reached everyone")
	}
	return rec.rate("deliveries"), nil
}

// sessionsAtOnce is how many sessions an upload to a backup has, as clients send them.
const sessionsAtOnce = 200

// keptSessions is a user with a new, empty backup.
type keptSessions struct {
	*user
	path string
}

func (t *target) newBackup() (*keptSessions, error) {
	u, err := t.register()
	if err != nil {
		return nil, err
	}
	i := newIdentity(u)
	var r struct {
		Version string `json:"version"`
	}
	auth := i.sign(object{"public_key": random(32)}, public(i.master), i.master)
	in := object{"algorithm": "m.megolm_backup.v1.curve25519-aes-sha2", "auth_data": auth}
	err = u.post("/room_keys/version", in, &r)
	return &keptSessions{u, "/_matrix/client/v3/room_keys/keys?version=" + url.QueryEscape(r.Version)}, err
}

// put uploads sessions of rooms, as many of each.
func (k *keptSessions) put(batch int) error {
	const rooms = 10
	in := object{}
	for n := range rooms {
		sessions := object{}
		for range sessionsAtOnce / rooms {
			// The id of a session is part of a path in other requests, where clients escape it.
			id := strings.NewReplacer("+", "-", "/", "_").Replace(random(32))
			sessions[id] = object{
				"first_message_index": 0, "forwarded_count": 0, "is_verified": true,
				"session_data": object{"ephemeral": random(32), "ciphertext": random(576), "mac": random(8)},
			}
		}
		in[fmt.Sprintf("!room%d:backup.test", (batch+n)%(5*rooms))] = object{"sessions": sessions}
	}
	var r struct {
		Count int    `json:"count"`
		ETag  string `json:"etag"`
	}
	_, err := k.t.call(context.Background(), "PUT", k.path, k.token, object{"rooms": in}, &r)
	if want := (batch + 1) * sessionsAtOnce; err == nil && (r.Count != want || r.ETag == "") {
		err = fmt.Errorf("the backup counts %d sessions of %d, etag %q", r.Count, want, r.ETag)
	}
	return err
}

// batches is how many uploads make a whole backup.
func (t *target) batches() int { return max(1, 10*t.history/sessionsAtOnce) }

// backup has a user upload all their sessions to a new backup, one request after the other.
func backup(t *target, rec *recorder) (map[string]float64, error) {
	k, err := t.newBackup()
	if err != nil {
		return nil, err
	}
	rec.start()
	for n := range t.batches() {
		began := time.Now()
		if err = k.put(n); err != nil {
			break
		}
		rec.took(time.Since(began))
	}
	rec.stop()
	figures := rec.latency()
	if figures != nil {
		figures["sessions/s"] = float64(len(rec.samples)*sessionsAtOnce) / rec.elapsed.Seconds()
	}
	return figures, err
}

// restore reads a whole backup, again and again.
func restore(t *target, rec *recorder) (map[string]float64, error) {
	k, err := once(t, "backup", func() (*keptSessions, error) {
		k, err := t.newBackup()
		for n := 0; n < t.batches() && err == nil; n++ {
			err = k.put(n)
		}
		return k, err
	})
	if err != nil {
		return nil, err
	}
	bytes := 0
	rec.load(1, t.duration, func(int) (err error) {
		var r struct {
			Rooms map[string]struct {
				Sessions map[string]json.RawMessage `json:"sessions"`
			} `json:"rooms"`
		}
		if bytes, err = t.call(context.Background(), "GET", k.path, k.token, nil, &r); err != nil {
			return err
		}
		got := 0
		for _, room := range r.Rooms {
			got += len(room.Sessions)
		}
		if want := t.batches() * sessionsAtOnce; got != want {
			return fmt.Errorf("the backup gave %d of %d sessions", got, want)
		}
		return nil
	})
	figures := rec.rate("restores")
	if figures != nil {
		figures["KiB"] = float64(bytes) / 1024
	}
	return figures, nil
}
