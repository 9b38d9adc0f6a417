package routing

import (
	"context"
	"encoding/json"

	"github.com/matrix-org/dendrite/clientapi/accounts"
	"github.com/matrix-org/dendrite/clientapi/notices"
	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
)

// moderated is GET /admin/lock/{userId} and /admin/suspend/{userId}.
func (e *endpoints) moderated(what string) httputil.Handler {
	return func(ctx context.Context, r *httputil.Request) (any, error) {
		user, err := r.UserID("userID")
		if err != nil {
			return nil, err
		}
		account, err := e.Accounts.Moderated(ctx, r.Caller, user)
		if err != nil {
			return nil, err
		}
		return httputil.Object{what: map[string]bool{accounts.Locked: account.Locked, accounts.Suspended: account.Suspended}[what]}, nil
	}
}

// moderate is PUT /admin/lock/{userId} and /admin/suspend/{userId}.
func (e *endpoints) moderate(what string) httputil.Handler {
	return func(ctx context.Context, r *httputil.Request) (any, error) {
		user, err := r.UserID("userID")
		if err != nil {
			return nil, err
		}
		var body struct {
			Locked    *bool `json:"locked"`
			Suspended *bool `json:"suspended"`
		}
		if err := r.JSON(&body); err != nil {
			return nil, err
		}
		is := map[string]*bool{accounts.Locked: body.Locked, accounts.Suspended: body.Suspended}[what]
		if is == nil {
			return nil, mxerr.MissingParam("%s is missing", what)
		}
		return httputil.Object{what: *is}, e.Accounts.Moderate(ctx, r.Caller, user, what, *is)
	}
}

// whois is GET /admin/whois/{userId}, for administrators and the user.
func (e *endpoints) whois(ctx context.Context, r *httputil.Request) (any, error) {
	user, err := r.UserID("userID")
	if err != nil {
		return nil, err
	}
	if user != r.Caller.UserID {
		if err := accounts.CheckAdmin(r.Caller); err != nil {
			return nil, err
		}
	}
	if _, err := e.Accounts.Local(ctx, user); err != nil {
		return nil, err
	}
	devices, err := e.Accounts.Devices(ctx, user)
	if err != nil {
		return nil, err
	}
	sessions := make(map[id.DeviceID]any, len(devices))
	for _, d := range devices {
		seen := httputil.Object{"last_seen": d.LastSeenMS, "ip": d.LastSeenIP}
		sessions[d.DeviceID] = httputil.Object{"sessions": []any{httputil.Object{"connections": []any{seen}}}}
	}
	return httputil.Object{"user_id": user, "devices": sessions}, nil
}

// sendNotice is POST /_synapse/admin/v1/send_server_notice, or PUT with a transaction id, for administrators: an event in the room in which
// a user gets notices of the server.
func (e *endpoints) sendNotice(ctx context.Context, r *httputil.Request) (any, error) {
	if err := accounts.CheckAdmin(r.Caller); err != nil {
		return nil, err
	}
	var body struct {
		UserID   string          `json:"user_id"`
		Type     string          `json:"type"`
		StateKey *string         `json:"state_key"`
		Content  json.RawMessage `json:"content"`
	}
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	user, err := userIDOf("user_id", body.UserID)
	if err != nil {
		return nil, err
	}
	content, err := object("content", body.Content)
	if err != nil {
		return nil, err
	}
	if content == nil {
		return nil, mxerr.MissingParam("content is missing: it is that of the event, such as {\"msgtype\": \"m.text\", \"body\": \"text\"}")
	}
	key := newKey()
	if txnID := r.Var("txnID"); txnID != "" {
		key = txnKey(r, "server notice", body.UserID, txnID)
	}
	eventID, err := e.Notices.Send(ctx, notices.Notice{UserID: user, Type: body.Type, StateKey: body.StateKey, Content: content, RequestKey: key})
	if err != nil {
		return nil, err
	}
	return httputil.Object{"event_id": eventID}, nil
}
