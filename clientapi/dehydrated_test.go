package clientapi

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/tidwall/gjson"

	"github.com/matrix-org/dendrite/clientapi/accounts"
	"github.com/matrix-org/dendrite/clientapi/api"
	"github.com/matrix-org/dendrite/clientapi/storage"
	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/test/keytest"
)

const dehydratedPath = "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device"

// told lists the types of the messages about a user, each with the device that it names, whatever its form.
func (s *server) told(user id.UserID) []string {
	s.t.Helper()
	page, err := s.api.ReadLog(s.t.Context(), eventlog.ReadRequest{Topic: api.Topic,
		Partition: eventlog.Partition(string(user)), From: 1, Limit: 100})
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
		master, self := keytest.Cross("@alice:test", "master"), keytest.Cross("@alice:test", "self")
		s.want(200, "", "POST", "/keys/device_signing/upload", alice, object{"master_key": master.CrossKey("master"),
			"self_signing_key": master.Sign(self.CrossKey("self_signing"))})
		dehydrate := func(name string) string {
			t.Helper()
			k := keytest.Device("@alice:test", keytest.Curve(name))
			keys := k.DeviceKeys()
			keys["dehydrated"], keys["keys"] = true, object{k.ID(): k.Public(), "curve25519:" + k.Device: k.Device}
			signed := k.Sign(keys)
			both, _ := signed["signatures"].(object)["@alice:test"].(object)
			maps.Copy(both, self.Sign(keys)["signatures"].(object)["@alice:test"].(object))
			s.want(200, "", "PUT", dehydratedPath, alice, object{"device_id": k.Device, "device_data": object{"algorithm": "x"},
				"device_keys": signed, "fallback_keys": k.Fallback(1)})
			return k.Device
		}
		at := len(s.told("@alice:test"))
		first := dehydrate("first")
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
		second := dehydrate("second")
		if n := s.db.Count().Since(before).Commits; n != 1 {
			t.Errorf("it is replaced in %d steps", n)
		}
		told("device_list "+first, "tokens "+first, "device_deleted "+first, "device_list "+second, "key_counts "+second)

		// It is none of those that go because there are too many.
		store := s.store()
		err := s.db.Write(t.Context(), "devices", func(ctx context.Context, tx *sqlutil.Tx) error {
			for i := range accounts.MaxDevices + 5 {
				d := storage.Device{UserID: "@alice:test", DeviceID: id.DeviceID(fmt.Sprint("D", i)), LastSeenMS: 1}
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
