package routing

import (
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/syncapi/answer"
	"github.com/matrix-org/dendrite/syncapi/push"
	"github.com/matrix-org/dendrite/syncapi/storage"
)

// Limits of pushers.
const (
	maxPushkey    = 512 // bytes
	maxAppID      = 64  // characters
	maxPusher     = 16 << 10
	maxPushers    = 20 // of a user
	usualNotified = 20
	maxNotified   = 100
)

// getPushers is GET /pushers.
func (s *routes) getPushers(ctx context.Context, r *httputil.Request) (any, error) {
	var stored []storage.Pusher
	err := s.Storage.Read(ctx, "pushers", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
		stored, err = s.Storage.Pushers(ctx, tx, r.Caller.UserID)
		return err
	})
	type pusher struct {
		AppID   string `json:"app_id"`
		Pushkey string `json:"pushkey"`
		push.Settings
	}
	pushers := make([]pusher, len(stored))
	for i := range stored {
		pushers[i].AppID, pushers[i].Pushkey = stored[i].AppID, stored[i].Pushkey
		if err == nil {
			err = json.Unmarshal(stored[i].Content, &pushers[i].Settings)
		}
	}
	return httputil.Object{"pushers": pushers}, err
}

// setPusher is POST /pushers/set.
func (s *routes) setPusher(ctx context.Context, r *httputil.Request) (any, error) {
	var body struct {
		AppID             *string         `json:"app_id"`
		Pushkey           *string         `json:"pushkey"`
		Kind              json.RawMessage `json:"kind"`
		AppDisplayName    *string         `json:"app_display_name"`
		DeviceDisplayName *string         `json:"device_display_name"`
		ProfileTag        string          `json:"profile_tag"`
		Lang              *string         `json:"lang"`
		Data              *struct {
			URL    *string `json:"url"`
			Format string  `json:"format"`
		} `json:"data"`
		Append bool `json:"append"`
	}
	raw, err := r.Object()
	if err != nil {
		return nil, err
	}
	if err := httputil.Unmarshal(raw, &body); err != nil {
		return nil, err
	}
	if err := given(map[string]bool{"kind": body.Kind != nil, "app_id": body.AppID != nil, "pushkey": body.Pushkey != nil}); err != nil {
		return nil, err
	}
	switch {
	case *body.AppID == "" || len([]rune(*body.AppID)) > maxAppID:
		return nil, mxerr.InvalidParam("app_id has 1 to %d characters", maxAppID)
	case *body.Pushkey == "" || len(*body.Pushkey) > maxPushkey:
		return nil, mxerr.InvalidParam("pushkey has 1 to %d bytes", maxPushkey)
	}
	key := storage.PusherKey{UserID: r.Caller.UserID, AppID: *body.AppID, Pushkey: *body.Pushkey}
	if string(body.Kind) == "null" {
		return nil, s.changePushers(ctx, func(ctx context.Context, tx *sqlutil.Tx, pos int64, c *storage.Changes) (err error) {
			c.Touched, err = s.Storage.DropPusher(ctx, tx, key)
			return err
		})
	}
	err = given(map[string]bool{"app_display_name": body.AppDisplayName != nil, "device_display_name": body.DeviceDisplayName != nil,
		"lang": body.Lang != nil, "data": body.Data != nil})
	if err != nil {
		return nil, err
	}
	switch {
	case string(body.Kind) != `"http"`:
		return nil, mxerr.InvalidParam("this server has pushers of the kind http only")
	case body.Data.URL == nil:
		return nil, mxerr.MissingParam("data.url is missing: the URL of the push gateway")
	case body.Data.Format != "" && body.Data.Format != "event_id_only":
		return nil, mxerr.InvalidParam("data.format must be event_id_only, or absent")
	}
	if err := push.CheckURL(*body.Data.URL); err != nil {
		return nil, err
	}
	var whole struct {
		Data json.RawMessage `json:"data"`
	}
	if err := httputil.Unmarshal(raw, &whole); err != nil {
		return nil, err
	}
	content, err := httputil.Marshal(push.Settings{Kind: "http", AppDisplayName: *body.AppDisplayName, DeviceDisplayName: *body.DeviceDisplayName,
		ProfileTag: body.ProfileTag, Lang: *body.Lang, Data: whole.Data})
	if err != nil {
		return nil, err
	}
	if len(content) > maxPusher {
		return nil, mxerr.InvalidParam("a pusher may have %d bytes", maxPusher)
	}
	p := &storage.Pusher{PusherKey: key, DeviceID: r.Caller.DeviceID, TS: time.Now().UnixMilli(), Content: content}
	return nil, s.changePushers(ctx, func(ctx context.Context, tx *sqlutil.Tx, pos int64, c *storage.Changes) error {
		p.Pos = pos
		if c.Touched, err = s.Storage.PutPusher(ctx, tx, p, body.Append); err != nil {
			return err
		}
		all, err := s.Storage.Pushers(ctx, tx, p.UserID)
		if err == nil && len(all) > maxPushers {
			err = mxerr.InvalidParam("a user may have %d pushers: remove some first", maxPushers)
		}
		return err
	})
}

func (s *routes) changePushers(ctx context.Context, change func(context.Context, *sqlutil.Tx, int64, *storage.Changes) error) error {
	return s.Storage.Write(ctx, "pushers", 1, func(ctx context.Context, tx *sqlutil.Tx, pos int64) (*storage.Changes, error) {
		c := new(storage.Changes)
		return c, change(ctx, tx, pos, c)
	})
}

// given refuses a request that lacks parameters.
func given(parameters map[string]bool) error {
	var missing []string
	for name, has := range parameters {
		if !has {
			missing = append(missing, name)
		}
	}
	if missing == nil {
		return nil
	}
	slices.Sort(missing)
	return mxerr.MissingParam("missing parameters: %s", strings.Join(missing, ", "))
}

// notifications is GET /notifications.
func (s *routes) notifications(ctx context.Context, r *httputil.Request) (any, error) {
	req := &answer.NotificationsRequest{UserID: r.Caller.UserID, DeviceID: r.Caller.DeviceID}
	var err error
	if from := r.Query("from"); from != "" {
		if req.Before, err = strconv.ParseInt(from, 10, 64); err != nil || req.Before <= 0 {
			return nil, mxerr.InvalidParam("from must be the next_token of an earlier answer, not %q", from)
		}
	}
	if req.Limit, err = r.QueryInt("limit", usualNotified); err != nil {
		return nil, err
	}
	req.Limit = min(max(req.Limit, 1), maxNotified)
	req.Highlights = r.Query("only") == "highlight"
	return s.Engine.Notifications(ctx, req)
}
