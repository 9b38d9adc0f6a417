package clientapi

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidwall/gjson"

	"github.com/matrix-org/dendrite/clientapi/accounts"
	"github.com/matrix-org/dendrite/clientapi/api"
	"github.com/matrix-org/dendrite/clientapi/keys"
	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/id"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/test/keytest"
)

// recordsOf reads what happened to a user, of one type.
func recordsOf[T any](s *server, user id.UserID, typ string) []T {
	s.t.Helper()
	page, err := s.api.ReadLog(s.t.Context(), eventlog.ReadRequest{Topic: api.Topic,
		Partition: eventlog.Partition(string(user)), From: 1, Limit: 10000})
	if err != nil {
		s.t.Fatal(err)
	}
	var all []T
	for i := range page.Records {
		if page.Records[i].Type != typ || page.Records[i].Key != string(user) {
			continue
		}
		o, err := eventlog.Decode[T](&page.Records[i])
		if err != nil {
			s.t.Fatal(err)
		}
		all = append(all, *o)
	}
	return all
}

// device logs a device in, and uploads its keys with so many one-time keys.
func (s *server) device(name, device string, oneTime int) (token string, key keytest.Key) {
	s.t.Helper()
	token = s.login(name, object{"device_id": device}).Get("access_token").Str
	key = keytest.Device("@"+name+":test", device)
	s.want(200, "", "POST", "/keys/upload", token, object{"device_keys": key.Sign(key.DeviceKeys()),
		"one_time_keys": key.OneTime(1, oneTime)})
	return token, key
}

func TestWhatOthersMustKnowIsToldOnce(t *testing.T) {
	each(t, nil, func(t *testing.T, s *server) {
		s.register("alice")
		const alice = "@alice:test"
		token, key := s.device("alice", "PHONE", 2)
		told := 0
		expect := func(what string, want ...string) {
			t.Helper()
			all := recordsOf[api.OutputDeviceList](s, alice, api.TypeDeviceList)
			var got []string
			for i, o := range all {
				if o.StreamID != int64(i+1) || o.PrevID != int64(i) {
					t.Errorf("the change %d is numbered %d after %d", i+1, o.StreamID, o.PrevID)
				}
				if i >= told {
					got = append(got, fmt.Sprintf("%s %t", o.DeviceID, o.Deleted))
				}
			}
			if told = len(all); !slices.Equal(got, want) {
				t.Errorf("%s: told of %q, want %q", what, got, want)
			}
		}
		expect("the first keys", "PHONE false")
		again := object{"device_keys": key.Sign(key.DeviceKeys()), "one_time_keys": key.OneTime(1, 2)}
		s.want(200, "", "POST", "/keys/upload", token, again)
		s.want(200, "", "POST", "/keys/upload", token, object{})
		expect("the same keys again")
		if n := len(recordsOf[api.OutputKeyCounts](s, alice, api.TypeKeyCounts)); n != 1 {
			t.Errorf("the same one-time keys were counted %d times", n)
		}
		s.want(200, "", "PUT", "/devices/PHONE", token, object{"display_name": "Mine"})
		expect("a name", "PHONE false")
		s.want(200, "", "PUT", "/devices/PHONE", token, object{"display_name": "Mine"})
		expect("the same name")
		other := s.login("alice", object{"device_id": "BARE"}).Get("access_token").Str
		s.want(200, "", "PUT", "/devices/BARE", other, object{"display_name": "No keys"})
		s.want(200, "", "POST", "/logout", other, object{})
		expect("a device without keys")

		master, self, user := keytest.Cross(alice, "m"), keytest.Cross(alice, "s"), keytest.Cross(alice, "u")
		cross := object{"master_key": master.CrossKey("master"),
			"self_signing_key": master.Sign(self.CrossKey("self_signing")),
			"user_signing_key": master.Sign(user.CrossKey("user_signing"))}
		s.want(200, "", "POST", "/keys/device_signing/upload", token, cross)
		expect("cross-signing keys", " false")
		s.want(200, "", "POST", "/keys/device_signing/upload", token, cross)
		expect("the same cross-signing keys")
		signatures := object{alice: object{"PHONE": self.Sign(key.DeviceKeys()),
			master.Public(): key.Sign(master.CrossKey("master"))}}
		s.want(200, "", "POST", "/keys/signatures/upload", token, signatures)
		all := recordsOf[api.OutputDeviceList](s, alice, api.TypeDeviceList)
		if len(all) != told+2 {
			t.Errorf("two signatures are told as %v", all[told:])
		}
		told = len(all)
		s.want(200, "", "POST", "/keys/signatures/upload", token, signatures)
		expect("the same signatures")

		s.register("bob")
		bobs := keytest.Cross("@bob:test", "m")
		bob := s.login("bob", nil).Get("access_token").Str
		s.want(200, "", "POST", "/keys/device_signing/upload", bob, object{"master_key": bobs.CrossKey("master")})
		s.want(200, "", "POST", "/keys/signatures/upload", token,
			object{"@bob:test": object{bobs.Public(): user.Sign(bobs.CrossKey("master"))}})
		expect("a signature that others do not see")
		if quiet := recordsOf[api.OutputSignedUsers](s, alice, api.TypeSignedUsers); len(quiet) != 1 ||
			!slices.Equal(quiet[0].Signed, []id.UserID{"@bob:test"}) {
			t.Errorf("the signer hears of %v", quiet)
		}
		second := keytest.Cross(alice, "u2")
		s.want(200, "", "POST", "/keys/device_signing/upload", token,
			object{"user_signing_key": master.Sign(second.CrossKey("user_signing")), "auth": password("alice")})
		expect("another user-signing key")
		quiet := recordsOf[api.OutputSignedUsers](s, alice, api.TypeSignedUsers)
		if !slices.Equal(quiet[len(quiet)-1].Signed, []id.UserID{alice, "@bob:test"}) {
			t.Errorf("whoever replaces a user-signing key hears of %v", quiet)
		}
		s.want(200, "", "POST", "/logout", token, object{})
		expect("the end of the device", "PHONE true")
	})
}

// rows counts what is kept of a user's devices and their keys, and what was told of the user.
func (s *server) rows(user string) map[string]int {
	s.t.Helper()
	return map[string]int{
		"device keys": s.count(`SELECT COUNT(*) FROM clientapi_device_keys WHERE user_id = $1`, user),
		"pools":       s.count(`SELECT COUNT(*) FROM clientapi_key_pools WHERE user_id = $1`, user),
		"one-time keys": s.count(`SELECT COALESCE(SUM(last_seq - first_seq + 1), 0) FROM clientapi_one_time_keys
			WHERE pool IN (SELECT nid FROM clientapi_key_pools WHERE user_id = $1)`, user),
		"orphans": s.count(`SELECT COUNT(*) FROM clientapi_one_time_keys
			WHERE pool NOT IN (SELECT nid FROM clientapi_key_pools)`),
		"records": s.count(`SELECT COUNT(*) FROM clientapi_log_rows
			WHERE key = $1 AND type IN ('device_list', 'key_counts', 'signed_users')`, user),
		"signatures": s.count(`SELECT COUNT(*) FROM clientapi_signatures WHERE user_id = $1 OR signer = $2`, user, user),
	}
}

func TestKeysEndWithTheirDevice(t *testing.T) {
	each(t, nil, func(t *testing.T, s *server) {
		s.room.QueryMemberships = func(context.Context,
			roomserver.QueryMembershipsRequest) (res roomserver.QueryMembershipsResponse, err error) {
			return res, nil
		}
		for name, end := range map[string]func(token string){
			"logout":     func(token string) { s.want(200, "", "POST", "/logout", token, object{}) },
			"logout-all": func(token string) { s.want(200, "", "POST", "/logout/all", token, object{}) },
			"delete": func(token string) {
				s.want(200, "", "DELETE", "/devices/PHONE", token, object{"auth": password("delete")})
			},
			"delete_devices": func(token string) {
				s.want(200, "", "POST", "/delete_devices", token, object{"devices": []string{"PHONE", "NONE"},
					"auth": password("delete_devices")})
			},
			"password": func(token string) {
				other := s.login("password", nil).Get("access_token").Str
				s.want(200, "", "POST", "/account/password", other, object{"new_password": "new", "auth": password("password")})
			},
			"deactivate": func(token string) {
				s.want(200, "", "POST", "/account/deactivate", token, object{"auth": password("deactivate")})
			},
			"surplus": func(string) { // others are seen later
				s.putDevices("@surplus:test", accounts.MaxDevices, time.Now().Add(time.Hour))
				s.login("surplus", object{"device_id": "NEW"})
			},
		} {
			user := "@" + name + ":test"
			s.register(name)
			token, key := s.device(name, "PHONE", 3)
			s.want(200, "", "POST", "/keys/upload", token, object{"fallback_keys": key.Fallback(1)})
			master, self := keytest.Cross(user, "m"), keytest.Cross(user, "s")
			s.want(200, "", "POST", "/keys/device_signing/upload", token,
				object{"master_key": key.Sign(master.CrossKey("master")),
					"self_signing_key": master.Sign(self.CrossKey("self_signing"))})
			s.want(200, "", "POST", "/keys/signatures/upload", token, object{user: object{"PHONE": self.Sign(key.DeviceKeys())}})
			s.want(200, "", "POST", "/keys/claim", token,
				object{"one_time_keys": object{user: object{"PHONE": "signed_curve25519"}}})
			want := map[string]int{"device keys": 1, "pools": 1, "one-time keys": 3, "orphans": 0, "signatures": 2, "records": 6}
			if got := s.rows(user); !maps.Equal(got, want) {
				t.Errorf("%s: before it, there are %v", name, got)
			}
			end(token)
			want = map[string]int{"device keys": 0, "pools": 0, "one-time keys": 0, "orphans": 0, "signatures": 0, "records": 7}
			if name == "deactivate" {
				want["records"] = 8 // of the cross-signing keys
			}
			if got := s.rows(user); !maps.Equal(got, want) {
				t.Errorf("%s leaves %v", name, got)
			}
			lists := recordsOf[api.OutputDeviceList](s, id.UserID(user), api.TypeDeviceList)
			ended := slices.IndexFunc(lists, func(o api.OutputDeviceList) bool { return o.DeviceID == "PHONE" && o.Deleted })
			if ended < 0 {
				t.Errorf("%s: nobody is told: %v", name, lists)
			}
			crossLeft := s.count(`SELECT COUNT(*) FROM clientapi_cross_signing WHERE user_id = $1`, user)
			if (name == "deactivate") != (crossLeft == 0) {
				t.Errorf("%s leaves %d cross-signing keys", name, crossLeft)
			}
			if name == "deactivate" || name == "password" {
				continue
			}
			// The same id is another device (E25).
			token = s.login(name, object{"device_id": "PHONE"}).Get("access_token").Str
			if counts := s.want(200, "", "POST", "/keys/upload", token,
				object{}); counts.Get("one_time_key_counts.signed_curve25519").Int() != 0 {
				t.Errorf("%s: the device that comes after has %s", name, counts.Raw)
			}
			s.want(200, "", "POST", "/keys/upload", token, object{"device_keys": key.Sign(key.DeviceKeys())})
			found := s.want(200, "", "POST", "/keys/query", token, object{"device_keys": object{user: []string{}}})
			of := gjson.Escape(user)
			if n := len(found.Get("device_keys." + of + ".PHONE.signatures." + of).Map()); n != 1 {
				t.Errorf("%s: the device that comes after has signatures: %s", name, found.Raw)
			}
		}
	})
}

func TestAOneTimeKeyIsGivenOnce(t *testing.T) {
	each(t, nil, func(t *testing.T, s *server) {
		s.register("alice")
		const devices, each, askers = 4, 25, 8
		wanted := map[id.UserID]map[id.DeviceID]string{"@alice:test": {}}
		for d := range devices {
			name := fmt.Sprint("D", d)
			token, key := s.device("alice", name, each-5)
			s.want(200, "", "POST", "/keys/upload", token, object{"one_time_keys": key.OneTime(each-4, 5),
				"fallback_keys": key.Fallback(1)})
			wanted["@alice:test"][id.DeviceID(name)] = "signed_curve25519"
		}
		var mu sync.Mutex
		given := make(map[string]int)
		order := make(map[id.DeviceID][]string)
		var group sync.WaitGroup
		for a := range askers {
			group.Go(func() {
				for n := 0; ; n++ {
					q := api.ClaimKeysRequest{RequestKey: fmt.Sprint(a, "/", n), Keys: wanted}
					got, err := s.api.ClaimKeys(t.Context(), q)
					if err != nil {
						t.Error(err)
						return
					}
					if n%7 == 0 {
						again, err := s.api.ClaimKeys(t.Context(), q)
						if err != nil || fmt.Sprint(again) != fmt.Sprint(got) {
							t.Errorf("a claim that is repeated gets %v instead of %v, %v", again, got, err)
						}
					}
					fallbacks := 0
					mu.Lock()
					for device, object := range got.Keys["@alice:test"] {
						gjson.ParseBytes(object).ForEach(func(name, _ gjson.Result) bool {
							given[string(device)+name.Str]++
							order[device] = append(order[device], name.Str)
							if strings.HasPrefix(name.Str, "signed_curve25519:F") {
								fallbacks++
							}
							return true
						})
					}
					mu.Unlock()
					if fallbacks == devices {
						return
					}
				}
			})
		}
		group.Wait()
		for key, n := range given {
			if n != 1 && !strings.Contains(key, ":F") {
				t.Errorf("%s was given %d times", key, n)
			}
		}
		if len(given) != devices*(each+1) {
			t.Errorf("%d keys were given of %d", len(given), devices*(each+1))
		}
		counts := recordsOf[api.OutputKeyCounts](s, "@alice:test", api.TypeKeyCounts)
		last := make(map[id.DeviceID]int)
		for _, c := range counts {
			left := c.OneTime["signed_curve25519"]
			if before, has := last[c.DeviceID]; has && left != before-1 && left != before && left != before+5 {
				t.Errorf("%s: %d are left after %d", c.DeviceID, left, before)
			}
			last[c.DeviceID] = left
		}
		for _, c := range counts[len(counts)-1:] {
			if c.OneTime["signed_curve25519"] != 0 || len(c.UnusedFallback) != 0 {
				t.Errorf("in the end it is told %v", c)
			}
		}
	})
}

func TestTheLastKeyIsGivenAgainToWhoRepeats(t *testing.T) {
	each(t, nil, func(t *testing.T, s *server) {
		s.register("alice")
		s.device("alice", "PHONE", 1)
		claim := func(key string) string {
			t.Helper()
			got, err := s.api.ClaimKeys(t.Context(), api.ClaimKeysRequest{RequestKey: key,
				Keys: map[id.UserID]map[id.DeviceID]string{"@alice:test": {"PHONE": "signed_curve25519", "NONE": "x",
					"BAD\x00": "x"}, "@nobody:test": {"X": "x"}}})
			if err != nil {
				t.Fatal(err)
			}
			return fmt.Sprintf("%s", got.Keys)
		}
		first := claim("one")
		if again := claim("one"); again != first || !strings.Contains(first, "signed_curve25519:000001") {
			t.Errorf("the first time %s, then %s", first, again)
		}
		if other := claim("two"); other != "map[]" {
			t.Errorf("another claim gets %s", other)
		}
	})
}

// Who tries again and again what cannot be leaves nothing behind, and waits for nobody (E3).
func TestAKeyIDThatIsTakenChangesNothing(t *testing.T) {
	each(t, nil, func(t *testing.T, s *server) {
		s.register("alice")
		token, key := s.device("alice", "PHONE", 3)
		other := key.Sign(object{"key": keytest.Curve("another")})
		body := object{"one_time_keys": object{"signed_curve25519:000002": other,
			"signed_curve25519:000009": key.OneTime(9, 1)["signed_curve25519:000009"]}}
		before := s.rows("@alice:test")
		var group sync.WaitGroup
		for range 20 {
			group.Go(func() {
				code, answer := s.call("POST", "/keys/upload", token, body)
				said := answer.Get("error").Str
				if code != 400 || !strings.HasPrefix(said, "One time key signed_curve25519:000002 already exists. Old key: {") {
					t.Errorf("%d %s", code, said)
					return
				}
				old, fresh, _ := strings.Cut(said, "; new key: ")
				_, old, _ = strings.Cut(old, "Old key: ")
				if gjson.Get(old, "key").Str != keytest.Curve("@alice:testPHONEsigned_curve25519:000002") || gjson.Get(fresh,
					"key").Str != keytest.Curve("another") ||
					!gjson.Get(old, "signatures").IsObject() || !gjson.Valid(fresh) {
					t.Errorf("%s: the keys are not read out of it", said)
				}
			})
		}
		group.Wait()
		if after := s.rows("@alice:test"); !maps.Equal(before, after) {
			t.Errorf("it leaves %v of %v", after, before)
		}
		s.want(400, "M_INVALID_PARAM", "POST", "/keys/upload", token, object{"one_time_keys": key.OneTime(100,
			keys.MaxOneTimeKeys)})
		s.want(200, "", "POST", "/keys/upload", token, object{"one_time_keys": key.OneTime(100, keys.MaxOneTimeKeys-3)})
		s.want(400, "M_INVALID_PARAM", "POST", "/keys/upload", token, object{"one_time_keys": key.OneTime(2000, 1)})
	})
}
