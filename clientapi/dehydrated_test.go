package clientapi

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/tidwall/gjson"

	"github.com/matrix-org/dendrite/clientapi/accounts"
	"github.com/matrix-org/dendrite/clientapi/api"
	"github.com/matrix-org/dendrite/clientapi/storage"
	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

const dehydratedPath = "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device"

func base64Of(b []byte) string { return base64.RawStdEncoding.EncodeToString(b) }

// signed returns the object with a signature of alice.
func signed(t *testing.T, o object, name string, private ed25519.PrivateKey) object {
	t.Helper()
	plain := maps.Clone(o)
	delete(plain, "signatures")
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	if err := e.Encode(plain); err != nil {
		t.Fatal(err)
	}
	mine := object{}
	if before, has := o["signatures"].(object); has {
		mine = maps.Clone(before["@alice:test"].(object))
	}
	mine["ed25519:"+name] = base64Of(ed25519.Sign(private, bytes.TrimSpace(text.Bytes())))
	plain["signatures"] = object{"@alice:test": mine}
	return plain
}

func newKey(t *testing.T) (string, ed25519.PrivateKey) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return base64Of(public), private
}

// told lists the types of the messages about a user, each with the device that it names, whatever its form.
func (s *server) told(user id.UserID) []string {
	s.t.Helper()
	page, err := s.api.ReadLog(s.t.Context(), eventlog.ReadRequest{Topic: api.Topic, Partition: eventlog.Partition(string(user)), From: 1, Limit: 100})
	if err != nil {
		s.t.Fatal(err)
	}
	var all []string
	for _, record := range page.Records {
		text := []byte(record.Value)
		if record.Decoded != nil {
			if text, err = json.Marshal(record.Decoded); err != nil {
				s.t.Fatal(err)
			}
		}
		all = append(all, record.Type+" "+gjson.GetBytes(text, "device_id").Str)
	}
	return all
}

func TestADehydratedDeviceIsReplacedInOneStep(t *testing.T) {
	each(t, nil, func(t *testing.T, s *server) {
		alice := s.register("alice")
		master, masterKey := newKey(t)
		self, selfKey := newKey(t)
		cross := func(usage, public string) object {
			return object{"user_id": "@alice:test", "usage": []string{usage}, "keys": object{"ed25519:" + public: public}}
		}
		s.want(200, "", "POST", "/keys/device_signing/upload", alice, object{"master_key": cross("master", master),
			"self_signing_key": signed(t, cross("self_signing", self), master, masterKey)})
		dehydrate := func() string {
			t.Helper()
			public, private := newKey(t)
			device := base64Of([]byte(rand.Text() + rand.Text())[:32])
			keys := object{"user_id": "@alice:test", "device_id": device, "dehydrated": true, "algorithms": []string{"m.olm"},
				"keys": object{"curve25519:" + device: device, "ed25519:" + device: public}}
			key := signed(t, object{"key": base64Of([]byte(rand.Text() + rand.Text())[:32]), "fallback": true}, device, private)
			s.want(200, "", "PUT", dehydratedPath, alice, object{"device_id": device, "device_data": object{"algorithm": "x"},
				"device_keys": signed(t, signed(t, keys, device, private), self, selfKey), "fallback_keys": object{"signed_curve25519:A": key}})
			return device
		}
		at := len(s.told("@alice:test"))
		first := dehydrate()
		told := func(want ...string) {
			t.Helper()
			log := s.told("@alice:test")
			if !slices.Equal(log[at:], want) {
				t.Errorf("it is told %q, want %q", log[at:], want)
			}
			at = len(log)
		}
		told("device_list "+first, "key_counts "+first)
		before := s.db.Count()
		second := dehydrate()
		if n := s.db.Count().Since(before).Commits; n != 1 {
			t.Errorf("it is replaced in %d steps", n)
		}
		told("device_list "+first, "tokens "+first, "device_deleted "+first, "device_list "+second, "key_counts "+second)

		// It is none of those that go because there are too many.
		store := s.store()
		err := s.db.Write(t.Context(), "devices", func(ctx context.Context, tx *sqlutil.Tx) error {
			for i := range accounts.MaxDevices + 5 {
				d := storage.Device{UserID: "@alice:test", DeviceID: id.DeviceID(strings.Repeat("x", i%200) + rand.Text()), LastSeenMS: 1}
				if err := store.PutDevice(ctx, tx, d); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		s.login("alice", nil)
		if n := s.count(`SELECT COUNT(*) FROM clientapi_devices WHERE user_id = '@alice:test'`); n != accounts.MaxDevices+1 {
			t.Errorf("there are %d devices", n)
		}
		if got := s.want(200, "", "GET", dehydratedPath, alice, nil); got.Get("device_id").Str != second {
			t.Errorf("the dehydrated device is %s", got.Raw)
		}
	})
}
