package consumers

import (
	clientapi "github.com/matrix-org/dendrite/clientapi/api"
	"github.com/matrix-org/dendrite/syncapi/storage"
)

// inboxesOf are those of deleted devices, up to the position at which that became known. Whoever empties them may take
// time for it.
func inboxesOf(devices []*clientapi.OutputDevice, pos int64) []storage.Inbox {
	inboxes := make([]storage.Inbox, len(devices))
	for i, d := range devices {
		inboxes[i] = storage.Inbox{UserID: d.UserID, DeviceID: d.DeviceID, Pos: pos}
	}
	return inboxes
}
