package syncapi_test

import (
	"context"
	"testing"

	clientapi "github.com/matrix-org/dendrite/clientapi/api"
	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// users is a clientapi of which only the log is there.
type users struct {
	t     *testing.T
	db    *sqlutil.DB
	log   *eventlog.Log
	topic *eventlog.Topic
}

func newUsers(t *testing.T, db *sqlutil.DB) *users {
	t.Helper()
	u := &users{t: t, db: db}
	var err error
	if u.log, err = eventlog.New(t.Context(), db, "fakeclient", eventlog.Options{Sole: true}); err != nil {
		t.Fatal(err)
	}
	if u.topic, err = u.log.Topic(t.Context(), clientapi.Topic, nil); err != nil {
		t.Fatal(err)
	}
	return u
}

func (u *users) api() *clientapi.ClientAPI {
	return &clientapi.ClientAPI{ReadLog: u.topic.Read, Heads: u.topic.Heads}
}

// append commits records of one user together.
func (u *users) append(user id.UserID, records ...record) {
	u.t.Helper()
	err := u.db.Write(u.t.Context(), "fake client", func(ctx context.Context, tx *sqlutil.Tx) error {
		for _, r := range records {
			u.topic.Append(ctx, tx, string(user), r.kind, r.message)
		}
		return nil
	})
	if err != nil {
		u.t.Fatal(err)
	}
}

type record struct {
	kind    string
	message any
}

func listOf(user id.UserID) record {
	return record{clientapi.TypeDeviceList, &clientapi.OutputDeviceList{UserID: user, DeviceID: "D", StreamID: 1}}
}

func countsOf(user id.UserID, device id.DeviceID, oneTime map[string]int, fallback ...string) record {
	return record{clientapi.TypeKeyCounts,
		&clientapi.OutputKeyCounts{UserID: user, DeviceID: device, OneTime: oneTime, UnusedFallback: fallback}}
}

func goneOf(user id.UserID, device id.DeviceID) record {
	return record{clientapi.TypeDeviceDeleted, &clientapi.OutputDevice{UserID: user, DeviceID: device}}
}
