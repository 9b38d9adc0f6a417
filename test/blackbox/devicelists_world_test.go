package blackbox

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"strings"

	"github.com/tidwall/gjson"
)

// keyUser is a user who does whatever comes to their mind with devices and keys.
type keyUser struct {
	*client // a device that stays
	chance  *rand.Rand
	devices []*keyDevice // with the one that stays, which is the first
	cross   *crossSigning
	signed  map[string]string // by user, which of their keys was signed with which
	named   int
}

// keyDevice is a device of a user, which may have keys.
type keyDevice struct {
	*client
	keys       *cryptoDevice
	name       string
	signed     bool // by the self-signing key
	signedBack bool // it has signed the master key
}

func newKeyUser(c *client, chance *rand.Rand) *keyUser {
	return &keyUser{client: c, chance: chance, devices: []*keyDevice{{client: c}}, signed: make(map[string]string)}
}

// try sends a request until it is answered, with the user's password where it must be confirmed. It returns false if it
// is refused; an error of the server fails the test.
func (c *client) try(ctx context.Context, method, path string, body object) (gjson.Result, bool) {
	answer, _, err := c.insist(ctx, method, path, body)
	var refused refusal
	if errors.As(err, &refused) && refused.status == http.StatusUnauthorized && refused.body.Get("session").Exists() {
		confirmed := maps.Clone(body)
		confirmed["auth"] = c.auth(refused.body.Get("session").Str)
		answer, _, err = c.insist(ctx, method, path, confirmed)
	}
	if err != nil && ctx.Err() == nil && (!errors.As(err, &refused) || refused.status >= http.StatusInternalServerError) {
		c.t.Error(err)
	}
	return answer, err == nil
}

// change is what the others must be told.
type change struct {
	what  string
	told  bool   // whoever sees the user must fetch their keys
	other string // this user alone must fetch the keys of this other one
	reset bool   // the user's signatures of others' keys are not shown any more
}

// actOnKeys does something with a device or a key.
func (u *keyUser) actOnKeys(ctx context.Context, users []*keyUser) change {
	device := pick(u.chance, u.devices)
	what := func(what string, told bool) change {
		return change{what: fmt.Sprintf("%s on %s %s", u.localpart, device.deviceID, what), told: told}
	}
	switch u.chance.IntN(13) {
	case 0, 1:
		return what(u.logIn(ctx))
	case 2, 3, 4:
		return what(device.upload(ctx))
	case 5:
		return what(u.rename(ctx, device))
	case 6, 7:
		return what(u.end(ctx, device))
	case 8:
		c := what(u.crossSign(ctx))
		c.reset = c.told
		return c
	case 9, 10:
		return what(u.signOwn(ctx, device))
	default:
		return u.signOther(ctx, pick(u.chance, users))
	}
}

// logIn makes one more device, which has no keys.
func (u *keyUser) logIn(ctx context.Context) (string, bool) {
	if len(u.devices) > 3 {
		return "has enough devices", false
	}
	other := u.d.anybody(u.t)
	other.localpart, other.password = u.localpart, u.password
	session, done := other.try(ctx, "POST", at("login"), object{"type": "m.login.password", "password": u.password,
		"identifier": object{"type": "m.id.user", "user": u.localpart}})
	if done {
		other.took(session)
		u.devices = append(u.devices, &keyDevice{client: other})
	}
	return "logs in as " + other.deviceID, false
}

// upload uploads device keys, or one-time keys, or what is there.
func (d *keyDevice) upload(ctx context.Context) (string, bool) {
	body, first := object{}, d.keys == nil
	if first {
		d.keys = d.crypto()
		body["fallback_keys"] = d.keys.fallbackKey()
	} else {
		body["one_time_keys"] = d.keys.oneTimeKeys(1)
	}
	body["device_keys"] = d.keys.deviceKeys()
	if _, done := d.try(ctx, "POST", at("keys", "upload"), body); !done {
		d.t.Errorf("%s may not upload %v", d.userID, body)
	}
	return "uploads keys", first
}

// rename names a device, perhaps as it is named.
func (u *keyUser) rename(ctx context.Context, device *keyDevice) (string, bool) {
	changes := device.name == "" || u.chance.IntN(3) > 0
	if changes {
		u.named++
		device.name = fmt.Sprint("device ", u.named)
	}
	_, done := u.try(ctx, "PUT", at("devices", device.deviceID), object{"display_name": device.name})
	return "is named " + device.name, done && changes && device.keys != nil
}

// end logs a device out, or deletes it.
func (u *keyUser) end(ctx context.Context, device *keyDevice) (string, bool) {
	if device == u.devices[0] {
		return "stays", false
	}
	how := u.chance.IntN(3)
	switch how {
	case 0:
		u.try(ctx, "DELETE", at("devices", device.deviceID), object{})
	case 1:
		u.try(ctx, "POST", at("delete_devices"), object{"devices": []string{device.deviceID}})
	default:
		device.try(ctx, "POST", at("logout"), object{}) // the second time it is not known any more
	}
	for i, d := range u.devices {
		if d == device {
			u.devices = append(u.devices[:i:i], u.devices[i+1:]...)
			break
		}
	}
	return fmt.Sprint("ends, in way ", how), device.keys != nil
}

// crossSign uploads new cross-signing keys, or those that are there.
func (u *keyUser) crossSign(ctx context.Context) (string, bool) {
	keys := u.cross
	if keys == nil || u.chance.IntN(2) == 0 {
		keys = u.crossSigning()
	}
	_, done := u.try(ctx, "POST", at("keys", "device_signing", "upload"), keys.upload())
	if !done {
		u.t.Errorf("%s may not upload cross-signing keys", u.userID)
	}
	if keys == u.cross {
		return "uploads the same cross-signing keys", false
	}
	u.cross = keys
	for _, d := range u.devices {
		d.signed, d.signedBack = false, false
	}
	return "uploads new cross-signing keys", true
}

// signOwn signs a device by the self-signing key, or the master key by the device.
func (u *keyUser) signOwn(ctx context.Context, device *keyDevice) (string, bool) {
	if u.cross == nil || device.keys == nil {
		return "has nothing to sign", false
	}
	name, is := device.deviceID, &device.signed
	signed := u.cross.self.sign(unsigned(device.keys.deviceKeys()))
	if u.chance.IntN(3) == 0 {
		name, is = u.cross.master.public(), &device.signedBack
		signed = device.keys.sign(u.cross.master.object("master"))
	}
	return "signs " + name, u.sign(ctx, u.userID, name, signed) && flips(is)
}

// unsigned is an object without signatures.
func unsigned(o object) object {
	o = maps.Clone(o)
	delete(o, "signatures")
	return o
}

// flips sets a flag and tells whether it was not set.
func flips(flag *bool) bool {
	was := *flag
	*flag = true
	return !was
}

// sign uploads a signature of a key, and tells whether the server took it.
func (u *keyUser) sign(ctx context.Context, userID, key string, signed object) bool {
	answer, done := u.try(ctx, "POST", at("keys", "signatures", "upload"), object{userID: object{key: signed}})
	return done && len(answer.Get("failures").Map()) == 0
}

// signOther signs somebody's master key, which nobody else is told.
func (u *keyUser) signOther(ctx context.Context, other *keyUser) change {
	c := change{what: u.localpart + " signs nothing of " + other.localpart}
	answer, done := u.try(ctx, "POST", at("keys", "query"), object{"device_keys": object{other.userID: []string{}}})
	master := answer.Get("master_keys." + escape(other.userID))
	if !done || u.cross == nil || other.userID == u.userID || !master.Exists() {
		return c
	}
	key := strings.TrimPrefix(firstKey(master.Get("keys")), "ed25519:")
	signed := u.cross.user.sign(object{"user_id": other.userID, "usage": []string{"master"},
		"keys": object{"ed25519:" + key: key}})
	if !u.sign(ctx, other.userID, key, signed) {
		return c
	}
	c.what = u.localpart + " signs " + key + " of " + other.localpart
	if how := u.cross.user.public() + " " + key; u.signed[other.userID] != how {
		u.signed[other.userID], c.other = how, other.userID
	}
	return c
}

// firstKey is the name of an object's first field.
func firstKey(o gjson.Result) (name string) {
	o.ForEach(func(key, _ gjson.Result) bool {
		name = key.Str
		return false
	})
	return name
}

// became is a membership that somebody has got.
type became struct{ userID, membership string }

// makeRoom makes a room, with somebody invited perhaps, and returns its id.
func (u *keyUser) makeRoom(ctx context.Context, other *keyUser) (string, []became) {
	request := object{"preset": "public_chat", "power_level_content_override": object{"invite": 0, "events": object{}}}
	var state []object
	if u.chance.IntN(2) == 0 {
		state = append(state, object{"type": "m.room.encryption", "state_key": "",
			"content": object{"algorithm": "m.megolm.v1.aes-sha2"}})
	}
	if u.chance.IntN(4) == 0 {
		state = append(state, object{"type": "m.room.join_rules", "state_key": "", "content": object{"join_rule": "knock"}})
	}
	request["initial_state"] = state
	now := []became{{u.userID, "join"}}
	if other.userID != u.userID && u.chance.IntN(2) == 0 {
		request["invite"] = []string{other.userID}
		now = append(now, became{other.userID, "invite"})
	}
	answer, done := u.try(ctx, "POST", at("createRoom"), request)
	if !done {
		u.t.Errorf("%s may not make a room", u.userID)
	}
	return answer.Get("room_id").Str, now
}

// actOnRoom changes a membership of a room. is has what they are, as far as somebody knows.
func (u *keyUser) actOnRoom(
	ctx context.Context, room string, other *keyUser, is func(room, userID string) string,
) (string, []became) {
	done := func(what string, membership string, of string) (string, []became) {
		return fmt.Sprintf("%s: %s %s", room, u.localpart, what), []became{{of, membership}}
	}
	nothing := func(what string) (string, []became) {
		return fmt.Sprintf("%s: %s may not %s", room, u.localpart, what), nil
	}
	act := func(segments ...string) string { return at(append([]string{"rooms", room}, segments...)...) }
	target := object{"user_id": other.userID}
	switch u.chance.IntN(13) {
	case 0, 1, 2, 3:
		if _, ok := u.try(ctx, "POST", at("join", room), object{}); ok {
			return done("joins", "join", u.userID)
		}
		return nothing("join")
	case 4, 5:
		if is(room, u.userID) == "ban" {
			return nothing("leave")
		}
		if _, ok := u.try(ctx, "POST", act("leave"), object{}); ok {
			return done("leaves", "leave", u.userID)
		}
		return nothing("leave")
	case 6, 7, 8:
		if is(room, other.userID) == "join" {
			return nothing("invite")
		}
		if _, ok := u.try(ctx, "POST", act("invite"), target); ok {
			return done("invites "+other.localpart, "invite", other.userID)
		}
		return nothing("invite")
	case 9:
		if _, ok := u.try(ctx, "POST", act("kick"), target); ok {
			return done("kicks "+other.localpart, "leave", other.userID)
		}
		return nothing("kick")
	case 10:
		if _, ok := u.try(ctx, "POST", act("ban"), target); ok {
			return done("bans "+other.localpart, "ban", other.userID)
		}
		return nothing("ban")
	case 11:
		if is(room, other.userID) == "ban" {
			if _, ok := u.try(ctx, "POST", act("unban"), target); ok {
				return done("unbans "+other.localpart, "leave", other.userID)
			}
		}
		if _, ok := u.try(ctx, "POST", at("knock", room), object{}); ok {
			return done("knocks", "knock", u.userID)
		}
		return nothing("knock")
	default:
		if _, ok := u.try(ctx, "POST", act("forget"), object{}); ok {
			return fmt.Sprintf("%s: %s forgets it", room, u.localpart), nil
		}
		return nothing("forget")
	}
}
