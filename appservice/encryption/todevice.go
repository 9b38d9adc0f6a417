package encryption

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/matrix-org/dendrite/appservice/storage"
	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
	syncapi "github.com/matrix-org/dendrite/syncapi/api"
)

// MaxWaiting is about how many rows of messages wait for a service: beyond, the oldest go.
const MaxWaiting = 1_000_000

// TakeSync takes messages to devices from syncapi's log. It is a consumers.Taker.
func (s *Service) TakeSync(_ context.Context, records []eventlog.Record) (eventlog.Apply, error) {
	var rows []storage.ToDevice
	for i := range records {
		if records[i].Type != syncapi.TypeServiceToDevice {
			continue
		}
		messages, err := eventlog.Decode[syncapi.OutputServiceToDevice](&records[i])
		if err != nil {
			return nil, err
		}
		more, err := s.split(messages)
		if err != nil {
			return nil, err
		}
		rows = append(rows, more...)
	}
	if rows == nil {
		return nil, nil
	}
	return func(ctx context.Context, tx *sqlutil.Tx) error {
		services := make(map[string]bool)
		for i := range rows {
			services[rows[i].Service] = true
		}
		s.wakeAfter(tx, services)
		return s.Store.PutToDevice(ctx, tx, rows, MaxWaiting)
	}, nil
}

// split makes a row for each service that gets some of the messages.
func (s *Service) split(messages *syncapi.OutputServiceToDevice) ([]storage.ToDevice, error) {
	type part struct {
		syncapi.OutputServiceToDevice
		numbers map[int]int // of contents, by those that they had
	}
	parts := make(map[string]*part)
	var order []string
	set := s.Registrations.Load()
	for _, to := range messages.To {
		if to.Content < 0 || to.Content >= len(messages.Contents) {
			return nil, eventlog.Permanent(fmt.Errorf("message to %s %s: there is no content %d", to.UserID, to.DeviceID, to.Content))
		}
		for _, service := range encrypting(set.Users(to.UserID)) {
			p := parts[service.ID]
			if p == nil {
				p = &part{numbers: make(map[int]int)}
				p.Sender, p.Type = messages.Sender, messages.Type
				parts[service.ID], order = p, append(order, service.ID)
			}
			number, has := p.numbers[to.Content]
			if !has {
				number = len(p.Contents)
				p.numbers[to.Content] = number
				p.Contents = append(p.Contents, messages.Contents[to.Content])
			}
			p.To = append(p.To, syncapi.ToDeviceRecipient{UserID: to.UserID, DeviceID: to.DeviceID, Content: number})
		}
	}
	rows := make([]storage.ToDevice, len(order))
	for i, service := range order {
		body, err := json.Marshal(&parts[service].OutputServiceToDevice)
		if err != nil {
			return nil, eventlog.Permanent(fmt.Errorf("messages to devices: %w", err))
		}
		rows[i] = storage.ToDevice{Service: service, Body: body}
	}
	return rows, nil
}

// message is how a service gets a message to a device (MSC4203).
type message struct {
	ToUserID   id.UserID       `json:"to_user_id"`
	ToDeviceID id.DeviceID     `json:"to_device_id"`
	Type       string          `json:"type"`
	Sender     id.UserID       `json:"sender"`
	Content    json.RawMessage `json:"content"`
}

// mail is what one transaction has of the messages that wait.
type mail struct {
	messages []json.RawMessage
	to       []id.UserID
	whole    []int64 // rows of which nothing is left
	part     *storage.ToDevice
}

// open takes messages from rows until there are most, or they have some bytes: the last may go beyond.
func open(rows []storage.ToDevice, most, bytes int) (*mail, error) {
	m := new(mail)
	size := 0
	for i := range rows {
		row := &rows[i]
		var messages syncapi.OutputServiceToDevice
		if err := json.Unmarshal(row.Body, &messages); err != nil {
			return nil, fmt.Errorf("messages to devices that wait: %w", err)
		}
		at := row.Taken
		for ; at < len(messages.To) && len(m.messages) < most && size < bytes; at++ {
			to := &messages.To[at]
			text, err := json.Marshal(&message{ToUserID: to.UserID, ToDeviceID: to.DeviceID, Type: messages.Type,
				Sender: messages.Sender, Content: messages.Contents[to.Content]})
			if err != nil {
				return nil, fmt.Errorf("messages to devices that wait: %w", err)
			}
			m.messages, m.to = append(m.messages, text), append(m.to, to.UserID)
			size += len(text)
		}
		if at < len(messages.To) {
			if at > row.Taken {
				m.part = &storage.ToDevice{Number: row.Number, Taken: at}
			}
			return m, nil
		}
		m.whole = append(m.whole, row.Number)
	}
	return m, nil
}
