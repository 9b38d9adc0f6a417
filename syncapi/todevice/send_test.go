package todevice

import (
	"context"
	"encoding/json"
	"path/filepath"
	"testing"

	clientapi "github.com/matrix-org/dendrite/clientapi/api"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/syncapi/api"
	"github.com/matrix-org/dendrite/syncapi/storage"
	"github.com/matrix-org/dendrite/syncapi/stream"
)

// What another replica has learnt of devices that are deleted, and this Hub has not heard, does not hinder a request.
func TestMessagesAreSentWhereTheHubIsBehind(t *testing.T) {
	const bob = id.UserID("@bob:test")
	url := "file:" + filepath.Join(t.TempDir(), "sync.db")
	db, err := sqlutil.Open(t.Context(), sqlutil.Options{ConnectionString: url}, sqlutil.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	kept, err := storage.New(t.Context(), db, func(storage.Changes) {})
	if err != nil {
		t.Fatal(err)
	}
	listed := 0
	s := New(Deps{Storage: kept, Hub: stream.New(stream.Options{}, "here"), ServerName: "test",
		Barrier: func(context.Context) error { return nil },
		Client: &clientapi.ClientAPI{QueryDevices: func(ctx context.Context, _ clientapi.QueryDevicesRequest,
		) (res clientapi.QueryDevicesResponse, err error) {
			res.Devices = map[id.UserID][]id.DeviceID{bob: {"PHONE"}}
			if listed++; listed > 1 {
				return res, nil
			}
			place := func(ctx context.Context, tx *sqlutil.Tx, pos int64) (*storage.Changes, error) {
				gone := []storage.Inbox{{UserID: bob, DeviceID: "PHONE", Pos: pos}}
				return new(storage.Changes), kept.PutGone(ctx, tx, gone)
			}
			return res, kept.Write(ctx, "gone", 1, place)
		}}})
	err = s.Send(t.Context(), &Request{SendToDeviceRequest: api.SendToDeviceRequest{RequestKey: "key", Sender: bob,
		Type: "x", Messages: map[id.UserID]map[id.DeviceID]json.RawMessage{bob: {"PHONE": json.RawMessage(`{}`)}}}})
	if err != nil || listed != 2 {
		t.Errorf("devices are listed %d times: %v", listed, err)
	}
}
