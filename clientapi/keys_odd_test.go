package clientapi

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/matrix-org/dendrite/clientapi/accounts"
	"github.com/matrix-org/dendrite/clientapi/api"
	"github.com/matrix-org/dendrite/clientapi/backups"
	"github.com/matrix-org/dendrite/clientapi/keys"
	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/test/keytest"
)

// Members have one spelling: what others are shown is what was checked.
func TestNamesOfMembersAreExact(t *testing.T) {
	each(t, nil, func(t *testing.T, s *server) {
		s.register("alice")
		token, key := s.device("alice", "PHONE", 0)
		// JSON in Go takes "keyſ" for keys, and the later member.
		twice := func(o object, name, odd string, shown any) object {
			c := maps.Clone(o)
			c[odd], c[name] = c[name], shown
			return c
		}
		identity := key.DeviceKeys()
		for _, odd := range []object{
			twice(identity, "keys", "keyſ", object{key.ID(): key.Public(), "curve25519:PHONE": keytest.Curve("other")}),
			twice(identity, "user_id", "uſer_id", "@bob:test"),
		} {
			s.want(400, "M_INVALID_PARAM", "POST", "/keys/upload", token, object{"device_keys": key.Sign(odd)})
		}
		master := keytest.Cross("@alice:test", "m")
		for _, odd := range []object{
			twice(master.CrossKey("master"), "keys", "keyſ", object{}),
			twice(master.CrossKey("master"), "user_id", "uſer_id", "@bob:test"),
			twice(master.CrossKey("master"), "usage", "uſage", []string{"self_signing"}),
		} {
			s.want(400, "M_INVALID_PARAM", "POST", "/keys/device_signing/upload", token, object{"master_key": odd})
		}
	})
}

func TestAnUnsignedKeyIDThatIsTaken(t *testing.T) {
	each(t, nil, func(t *testing.T, s *server) {
		s.register("alice")
		token, _ := s.device("alice", "PHONE", 0)
		of := func(name string) object { return object{"one_time_keys": object{"curve25519:A": keytest.Curve(name)}} }
		s.want(200, "", "POST", "/keys/upload", token, of("one"))
		s.want(200, "", "POST", "/keys/upload", token, of("one"))
		s.want(400, "M_UNKNOWN", "POST", "/keys/upload", token, of("two"))
		s.want(400, "M_UNKNOWN", "POST", "/keys/upload", token, object{"one_time_keys": object{"curve25519:A": object{
			"key": keytest.Curve("one"), "signatures": object{"@alice:test": object{"ed25519:PHONE": "x"}}}}})
	})
}

func TestSignaturesOfNobodysKeys(t *testing.T) {
	each(t, nil, func(t *testing.T, s *server) {
		token := s.register("alice")
		s.want(400, "M_BAD_JSON", "POST", "/keys/signatures/upload", token, `{"@alice:test":null}`)
		s.want(200, "", "POST", "/keys/signatures/upload", token, `{"@alice:test":{}}`)
	})
}

// What was checked before an account ended is not stored after it.
func TestNothingOfAnAccountComesAfterItsEnd(t *testing.T) {
	each(t, nil, func(t *testing.T, s *server) {
		s.room.QueryMemberships = func(context.Context,
			roomserver.QueryMembershipsRequest) (res roomserver.QueryMembershipsResponse, err error) {
			return res, nil
		}
		token := s.register("alice")
		p, err := open(t.Context(), s.db, &s.cfg.Matrix, eventlog.Options{}, accounts.Deps{Forget: func(id.UserID, id.DeviceID) {}})
		if err != nil {
			t.Fatal(err)
		}
		master := keytest.Cross("@alice:test", "m")
		raw, err := json.Marshal(master.CrossKey("master"))
		if err != nil {
			t.Fatal(err)
		}
		checked, err := p.keys.CheckCrossSigning(t.Context(), "@alice:test", keys.CrossSigning{Master: raw})
		if err != nil {
			t.Fatal(err)
		}
		s.want(200, "", "POST", "/account/deactivate", token, object{"auth": password("alice")})
		if err := p.keys.PutCrossSigning(t.Context(), checked); !mxerr.Is(err, "M_UNKNOWN_TOKEN") {
			t.Errorf("cross-signing keys: %v", err)
		}
		if _, err := backups.New(p.store).Create(t.Context(), "@alice:test", "x", []byte("{}")); !mxerr.Is(err,
			"M_UNKNOWN_TOKEN") {
			t.Errorf("a backup: %v", err)
		}
		for _, table := range []string{"devices", "cross_signing", "backups"} {
			if n := s.count(`SELECT COUNT(*) FROM clientapi_`+table+` WHERE user_id = $1`, "@alice:test"); n != 0 {
				t.Errorf("%d rows of %s are left", n, table)
			}
		}
	})
}

// Of the keys that were given so many are remembered.
func TestGivenKeysAreBounded(t *testing.T) {
	each(t, nil, func(t *testing.T, s *server) {
		s.register("alice")
		token, key := s.device("alice", "PHONE", 0)
		wanted := map[id.UserID]map[id.DeviceID]string{"@alice:test": {"PHONE": "signed_curve25519"}}
		for round := range 7 {
			s.want(200, "", "POST", "/keys/upload", token, object{"one_time_keys": key.OneTime(1+round*150, 150)})
			for n := range 150 {
				if _, err := s.api.ClaimKeys(t.Context(), api.ClaimKeysRequest{RequestKey: fmt.Sprint(round, "/", n),
					Keys: wanted}); err != nil {
					t.Fatal(err)
				}
			}
		}
		if rows := s.rows("@alice:test")["one-time keys"]; rows != 750 { // of 1050
			t.Errorf("%d keys are kept", rows)
		}
		s.want(200, "", "POST", "/keys/upload", token, object{"one_time_keys": key.OneTime(600, 1)})
		if got, err := s.api.ClaimKeys(t.Context(), api.ClaimKeysRequest{RequestKey: "more",
			Keys: wanted}); err != nil || len(got.Keys) != 0 {
			t.Errorf("a key that was given is given again: %s %v", got, err)
		}
		many := map[id.UserID]map[id.DeviceID]string{"@alice:test": {}}
		for n := range keys.MaxClaimDevices + 1 {
			many["@alice:test"][id.DeviceID(fmt.Sprint(n))] = "x"
		}
		if _, err := s.api.ClaimKeys(t.Context(), api.ClaimKeysRequest{RequestKey: "many", Keys: many}); !mxerr.Is(err,
			"M_INVALID_PARAM") {
			t.Errorf("a claim of too many devices: %v", err)
		}
	})
}

// A claim of many users and devices asks for these devices, not for each device of each user.
func TestAClaimOfManyTakesNoLongTime(t *testing.T) {
	each(t, nil, func(t *testing.T, s *server) {
		s.register("alice")
		s.device("alice", "D7", 1)
		wanted := map[id.UserID]map[id.DeviceID]string{"@alice:test": {"D7": "signed_curve25519"}}
		for n := range keys.MaxClaimDevices - 1 {
			wanted[id.UserID(fmt.Sprintf("@u%d:test", n))] = map[id.DeviceID]string{
				id.DeviceID(fmt.Sprint("D", n)): "signed_curve25519"}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		got, err := s.api.ClaimKeys(ctx, api.ClaimKeysRequest{RequestKey: "many", Keys: wanted})
		if err != nil || len(got.Keys["@alice:test"]) != 1 {
			t.Errorf("%v, %v", got, err)
		}
	})
}
