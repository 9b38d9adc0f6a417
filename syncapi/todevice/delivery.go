package todevice

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"hash/maphash"
	"slices"

	clientapi "github.com/matrix-org/dendrite/clientapi/api"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/syncapi/api"
	"github.com/matrix-org/dendrite/syncapi/storage"
)

const (
	// worthSharing is from how many bytes on content is kept once for all who get the same.
	worthSharing = 512
	// maxRecord is about how many bytes of messages one record for another server has.
	maxRecord = 256 << 10
)

// delivery is what a request has for devices that exist, and for other servers.
type delivery struct {
	users  []id.UserID // of this server
	rows   []storage.ToDevice
	shared []storage.Shared
	remote []api.OutputToDevice
	// services are what application services get besides, trimmed the devices that leave old messages to them.
	services []api.OutputServiceToDevice
	trimmed  []inbox
}

func (d *delivery) isEmpty() bool { return len(d.rows)+len(d.remote) == 0 }

// reaches tells whether one of some devices gets a message.
func (d *delivery) reaches(some []storage.Inbox) bool {
	if len(some) == 0 {
		return false
	}
	them := make(map[inbox]bool, len(some))
	for _, in := range some {
		them[inbox{in.UserID, in.DeviceID}] = true
	}
	return slices.ContainsFunc(d.rows, func(m storage.ToDevice) bool {
		return them[inbox{m.UserID, m.DeviceID}] || them[inbox{m.UserID, ""}]
	})
}

// at are the rows with their position.
func (d *delivery) at(pos int64) []storage.ToDevice {
	rows := slices.Clone(d.rows)
	for i := range rows {
		rows[i].Pos = pos
	}
	return rows
}

// deliver finds out who gets what.
func (s *Service) deliver(ctx context.Context, req *Request) (*delivery, error) {
	d := new(delivery)
	for user := range req.Messages {
		if user.Server() == s.ServerName {
			d.users = append(d.users, user)
		}
	}
	d.addRemote(req, s.ServerName)
	if len(d.users) == 0 {
		return d, nil
	}
	found, err := s.Client.QueryDevices(ctx, clientapi.QueryDevicesRequest{UserIDs: d.users})
	if err != nil {
		return nil, fmt.Errorf("devices that messages are for: %w", err)
	}
	for user, devices := range found.Devices {
		d.addLocal(req, user, devices)
	}
	if len(d.rows) > MaxRecipients {
		return nil, mxerr.TooLarge("one request may reach %d devices: send to some of the users in another",
			MaxRecipients)
	}
	d.addServices(req, s.Registrations.Load())
	return d, s.share(ctx, d)
}

// addLocal adds the messages for those of a user's devices that are named, by their ids or all together.
func (d *delivery) addLocal(req *Request, user id.UserID, devices []id.DeviceID) {
	messages := req.Messages[user]
	for _, device := range devices {
		content, named := messages[device]
		if !named {
			content, named = messages[api.AllDevices]
		}
		if named {
			d.rows = append(d.rows, storage.ToDevice{UserID: user, DeviceID: device, Sender: req.Sender, Type: req.Type,
				Size: int64(len(content)), Content: content})
		}
	}
}

// share takes content that several get out of the rows.
func (s *Service) share(ctx context.Context, d *delivery) error {
	same := make(map[uint64][]int) // by a hash, which spares most a comparison
	for i := range d.rows {
		if content := d.rows[i].Content; len(content) >= worthSharing {
			hash := maphash.Bytes(s.seed, content)
			same[hash] = append(same[hash], i)
		}
	}
	for _, rows := range same {
		content := d.rows[rows[0]].Content
		rows = slices.DeleteFunc(rows, func(i int) bool { return !bytes.Equal(d.rows[i].Content, content) })
		if len(rows) == 1 {
			continue
		}
		number, err := s.Storage.SharedIDs(ctx, 1)
		if err != nil {
			return err
		}
		d.shared = append(d.shared, storage.Shared{ID: number, Refs: len(rows), Content: content})
		for _, i := range rows {
			d.rows[i].Shared, d.rows[i].Content = number, nil
		}
	}
	return nil
}

// addRemote adds what is for users of other servers: one record for each server, or more where one would be too large.
func (d *delivery) addRemote(req *Request, here id.ServerName) {
	last := make(map[id.ServerName]int) // records, by server
	sizes := make(map[id.ServerName]int)
	for user, devices := range req.Messages {
		server := user.Server()
		if server == here {
			continue
		}
		for device, content := range devices {
			at, has := last[server]
			if sizes[server] += len(content); !has || sizes[server] > maxRecord {
				at, sizes[server] = len(d.remote), len(content)
				last[server] = at
				d.remote = append(d.remote, api.OutputToDevice{Server: server, Sender: req.Sender, Type: req.Type,
					MessageID: rand.Text(), Messages: make(map[id.UserID]map[id.DeviceID]json.RawMessage)})
			}
			of := d.remote[at].Messages
			if of[user] == nil {
				of[user] = make(map[id.DeviceID]json.RawMessage)
			}
			of[user][device] = bytes.Clone(content) // the log keeps it in memory, which shall not hold the whole request
		}
	}
}
