package todevice

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/matrix-org/dendrite/common/registration"
	"github.com/matrix-org/dendrite/syncapi/api"
)

const (
	// keepForServices is how long the inbox of a device keeps messages that an application service gets too and that
	// the device does not fetch, where the device's user is the service's alone.
	keepForServices = 7 * 24 * time.Hour
	// trimServicesEach is for how many such messages it is looked once, on average, whether an inbox has older ones.
	trimServicesEach = 50
)

// addServices adds what application services get besides. A message to a device of a service's user goes both ways,
// into a transaction and into the inbox of the device, so that it arrives whether the service reads the one or calls
// /sync for the other. Where the user is the service's alone, the inbox gives up what nobody fetches (MSC4203, § When
// to delete a to-device message).
func (d *delivery) addServices(req *Request, services *registration.Set) {
	if services.Empty() {
		return
	}
	var record *api.OutputServiceToDevice
	size := 0
	numbers := make(map[string]int) // of contents in the record
	for i := range d.rows {
		row := &d.rows[i]
		if !slices.ContainsFunc(services.Users(row.UserID), (*registration.Registration).Encrypts) {
			continue
		}
		number, has := numbers[string(row.Content)]
		if !has {
			size += len(row.Content)
		}
		size += len(row.UserID) + len(row.DeviceID)
		if record == nil || size > maxRecord {
			d.services = append(d.services, api.OutputServiceToDevice{Sender: req.Sender, Type: req.Type})
			record, size, has = &d.services[len(d.services)-1], len(row.Content), false
			clear(numbers)
		}
		if !has {
			number = len(record.Contents)
			numbers[string(row.Content)] = number
			// The log keeps it in memory, which shall not hold the whole request.
			record.Contents = append(record.Contents, json.RawMessage(bytes.Clone(row.Content)))
		}
		record.To = append(record.To, api.ToDeviceRecipient{UserID: row.UserID, DeviceID: row.DeviceID, Content: number})
		if slices.ContainsFunc(services.ExclusiveUsers(row.UserID), (*registration.Registration).Encrypts) {
			d.trimmed = append(d.trimmed, inbox{row.UserID, row.DeviceID})
		}
	}
}

// trimServices removes old messages from some of the inboxes of devices whose messages go to services.
func (s *Service) trimServices(devices []inbox) {
	before := s.Hub.Position() - keepForServices.Microseconds()
	for _, in := range devices {
		if rand.N(trimServicesEach) == 0 {
			s.empty(in, before)
		}
	}
}
