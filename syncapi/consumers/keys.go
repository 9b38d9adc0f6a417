package consumers

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	clientapi "github.com/matrix-org/dendrite/clientapi/api"
	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/syncapi/storage"
)

// olmKeys is the algorithm of one-time keys. Their count is always said: a client that is told none may upload none.
const olmKeys = "signed_curve25519"

// maxTold is of how many rooms one commit tells that keys of members have changed: they have to fit into one message to
// other replicas. Beyond, everybody looks.
const maxTold = 5000

type device struct {
	user id.UserID
	id   id.DeviceID
}

// keyChanges are what records say of keys.
type keyChanges struct {
	updated map[id.UserID]struct{} // whose keys others must fetch anew
	signed  map[id.UserID][]id.UserID
	counts  map[device]*clientapi.OutputKeyCounts // the last of each device
}

// take adds what a record says, if it is about keys. Records come in the order of the log.
func (k *keyChanges) take(r *eventlog.Record) error {
	switch r.Type {
	case clientapi.TypeDeviceList:
		list, err := eventlog.Decode[clientapi.OutputDeviceList](r)
		if err != nil {
			return err
		}
		put(&k.updated, list.UserID, struct{}{})
	case clientapi.TypeSignedUsers:
		signed, err := eventlog.Decode[clientapi.OutputSignedUsers](r)
		if err != nil {
			return err
		}
		put(&k.signed, signed.UserID, append(k.signed[signed.UserID], signed.Signed...))
	case clientapi.TypeKeyCounts:
		counts, err := eventlog.Decode[clientapi.OutputKeyCounts](r)
		if err != nil {
			return err
		}
		put(&k.counts, device{counts.UserID, counts.DeviceID}, counts)
	}
	return nil
}

// end forgets what was said of a device that is deleted, or, without one, of all of the user's. What is said after that
// is of another one with its name.
func (k *keyChanges) end(gone *clientapi.OutputDevice) {
	maps.DeleteFunc(k.counts, func(d device, _ *clientapi.OutputKeyCounts) bool {
		return d.user == gone.UserID && (gone.DeviceID == "" || d.id == gone.DeviceID)
	})
}

func put[K comparable, V any](m *map[K]V, key K, value V) {
	if *m == nil {
		*m = make(map[K]V)
	}
	(*m)[key] = value
}

func (k *keyChanges) isNothing() bool { return len(k.updated)+len(k.signed)+len(k.counts) == 0 }

// addTo makes rows at a position, and names who must hear of them. It runs after the keys of devices that are gone are
// dropped.
func (k *keyChanges) addTo(
	ctx context.Context, tx *sqlutil.Tx, db *storage.Database, pos int64, changes *storage.Changes,
) error {
	for d, output := range k.counts {
		keys, err := deviceKeys(d, pos, output)
		if err != nil {
			return err
		}
		changes.DeviceKeys = append(changes.DeviceKeys, *keys)
	}
	for viewer, signed := range k.signed {
		for _, user := range signed {
			changes.DeviceLists = append(changes.DeviceLists, storage.DeviceList{UserID: user, Viewer: viewer, Pos: pos})
		}
		changes.Touched = append(changes.Touched, storage.Touched{Kind: storage.KindSignedUsers, User: viewer})
	}
	if k.updated == nil {
		return nil
	}
	rooms, err := db.SeenIn(ctx, tx, slices.Collect(maps.Keys(k.updated)), maxTold+1)
	if err != nil {
		return err
	}
	told := 0
	for _, of := range rooms {
		told += len(of)
	}
	if told > maxTold {
		rooms = nil
		for user := range k.updated { // one is enough: it is for everybody
			t := storage.Touched{Kind: storage.KindDeviceListsAnywhere, User: user}
			changes.Touched = append(changes.Touched, t)
			break
		}
	}
	for user := range k.updated {
		changes.DeviceLists = append(changes.DeviceLists, storage.DeviceList{UserID: user, Pos: pos})
		changes.Touched = append(changes.Touched, storage.Touched{Kind: storage.KindDeviceLists, User: user})
		for _, room := range rooms[user] {
			t := storage.Touched{Kind: storage.KindDeviceLists, User: user, Room: room}
			changes.Touched = append(changes.Touched, t)
		}
	}
	return nil
}

// deviceKeys is the row of a device, with texts as clients get them.
func deviceKeys(d device, pos int64, output *clientapi.OutputKeyCounts) (*storage.DeviceKeys, error) {
	counts := map[string]int{olmKeys: 0}
	maps.Copy(counts, output.OneTime)
	oneTime, err := json.Marshal(counts)
	if err != nil {
		return nil, fmt.Errorf("counts of keys: %w", err)
	}
	unused := append([]string{}, output.UnusedFallback...)
	slices.Sort(unused)
	fallback, err := json.Marshal(unused)
	if err != nil {
		return nil, fmt.Errorf("unused fallback keys: %w", err)
	}
	return &storage.DeviceKeys{UserID: d.user, DeviceID: d.id, Pos: pos, OneTime: oneTime, Fallback: fallback}, nil
}
