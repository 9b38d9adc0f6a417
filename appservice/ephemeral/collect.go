package ephemeral

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/matrix-org/dendrite/appservice/storage"
	"github.com/matrix-org/dendrite/appservice/transactions"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/registration"
	"github.com/matrix-org/dendrite/common/sqlutil"
	syncapi "github.com/matrix-org/dendrite/syncapi/api"
)

// event is what is ephemeral in a transaction.
type event struct {
	Type    string    `json:"type"`
	RoomID  id.RoomID `json:"room_id,omitempty"`
	Sender  id.UserID `json:"sender,omitempty"`
	Content any       `json:"content"`
}

// typingContent is that of m.typing, and the body of its rows.
type typingContent struct {
	UserIDs []id.UserID `json:"user_ids"`
}

// presenceContent is that of m.presence.
type presenceContent struct {
	Presence        string `json:"presence"`
	LastActiveAgo   int64  `json:"last_active_ago"` // ms
	StatusMsg       string `json:"status_msg,omitempty"`
	CurrentlyActive bool   `json:"currently_active"`
}

// receiptContent is that of m.receipt: by event, type and user.
type receiptContent map[id.EventID]map[string]map[id.UserID]receiptData

type receiptData struct {
	Timestamp int64  `json:"ts"`
	ThreadID  string `json:"thread_id,omitempty"`
}

// Waiting lists the services for which something waits.
func (s *Service) Waiting(ctx context.Context) (services []string, err error) {
	err = s.Store.DB.ReadOne(ctx, "ephemeral events wait", func(ctx context.Context, tx *sqlutil.Tx) error {
		services, err = s.Store.EphemeralWaiting(ctx, tx)
		return err
	})
	return services, err
}

// Collect returns the next part of a service (see transactions.Companions). What waits for one that no longer wants it
// goes.
func (s *Service) Collect(
	ctx context.Context, service *registration.Registration, _ []id.UserID,
) (part transactions.Part, err error) {
	var waiting []storage.Ephemeral
	err = s.Store.DB.ReadOne(ctx, "ephemeral events for a service", func(ctx context.Context, tx *sqlutil.Tx) error {
		waiting, err = s.Store.Ephemeral(ctx, tx, service.ID, maxRows)
		return err
	})
	if err != nil || len(waiting) == 0 {
		return part, err
	}
	if service.WantsEphemeral() {
		size := 0
		for i := range waiting {
			if size += len(waiting[i].Body); size > maxBytes && i > 0 {
				waiting = waiting[:i]
				break
			}
		}
		if part.Ephemeral, err = s.events(waiting); err != nil {
			return part, fmt.Errorf("ephemeral events for %s: %w", service.ID, err)
		}
	}
	part.Taken = func(ctx context.Context, tx *sqlutil.Tx) error { return s.Store.TakeEphemeral(ctx, tx, waiting) }
	return part, nil
}

// events makes events of rows. Receipts of one room are one event, where each of a user is for another event or type.
func (s *Service) events(waiting []storage.Ephemeral) ([]json.RawMessage, error) {
	var all []event
	receipts := make(map[id.RoomID]receiptContent)
	for i := range waiting {
		row := &waiting[i]
		switch row.Kind {
		case kindTyping:
			var content typingContent
			if err := json.Unmarshal(row.Body, &content); err != nil {
				return nil, fmt.Errorf("typing: %w", err)
			}
			all = append(all, event{Type: "m.typing", RoomID: id.RoomID(row.Name), Content: content})
		case kindPresence:
			var p syncapi.OutputPresence
			if err := json.Unmarshal(row.Body, &p); err != nil {
				return nil, fmt.Errorf("presence: %w", err)
			}
			content := presenceContent{Presence: p.Presence, StatusMsg: p.StatusMsg,
				LastActiveAgo: max(0, s.Now().UnixMilli()-p.Active), CurrentlyActive: p.Presence == "online"}
			all = append(all, event{Type: "m.presence", Sender: p.UserID, Content: content})
		case kindReceipt:
			var r receipt
			if err := json.Unmarshal(row.Body, &r); err != nil {
				return nil, fmt.Errorf("receipt: %w", err)
			}
			content := receipts[r.RoomID]
			if content == nil || !content.add(&r) {
				content = make(receiptContent)
				content.add(&r)
				receipts[r.RoomID] = content
				all = append(all, event{Type: "m.receipt", RoomID: r.RoomID, Content: content})
			}
		}
	}
	out := make([]json.RawMessage, len(all))
	for i := range all {
		var err error
		if out[i], err = json.Marshal(all[i]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// add adds a receipt. It returns false where there is one of the user already, as of another thread.
func (c receiptContent) add(r *receipt) bool {
	kind := "m.read"
	if r.Private {
		kind = "m.read.private"
	}
	if c[r.EventID] == nil {
		c[r.EventID] = make(map[string]map[id.UserID]receiptData)
	}
	if c[r.EventID][kind] == nil {
		c[r.EventID][kind] = make(map[id.UserID]receiptData)
	}
	if _, has := c[r.EventID][kind][r.UserID]; has {
		return false
	}
	c[r.EventID][kind][r.UserID] = receiptData{Timestamp: r.Timestamp, ThreadID: r.ThreadID}
	return true
}
