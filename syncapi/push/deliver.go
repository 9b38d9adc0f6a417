package push

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/id"
)

const (
	answerTime = 30 * time.Second // of a gateway
	maxAnswer  = 64 << 10
	retryFirst = time.Second
	retryLast  = 10 * time.Minute
)

// notification is the body of POST /_matrix/push/v1/notify.
type notification struct {
	EventID           id.EventID      `json:"event_id,omitempty"`
	RoomID            id.RoomID       `json:"room_id,omitempty"`
	Type              string          `json:"type,omitempty"`
	Sender            id.UserID       `json:"sender,omitempty"`
	SenderDisplayName string          `json:"sender_display_name,omitempty"`
	RoomName          string          `json:"room_name,omitempty"`
	RoomAlias         id.RoomAlias    `json:"room_alias,omitempty"`
	UserIsTarget      bool            `json:"user_is_target,omitempty"`
	Prio              string          `json:"prio"`
	Content           json.RawMessage `json:"content,omitempty"`
	Counts            counts          `json:"counts"`
	Devices           []device        `json:"devices"`
}

type counts struct {
	Unread int64 `json:"unread,omitempty"`
}

func countsOf(unread int64) counts { return counts{unread} }

type device struct {
	AppID     string                     `json:"app_id"`
	Pushkey   string                     `json:"pushkey"`
	PushkeyTS int64                      `json:"pushkey_ts"` // s
	Data      map[string]json.RawMessage `json:"data"`
	Tweaks    map[string]json.RawMessage `json:"tweaks,omitempty"`
}

func (p *pusher) device(tweaks map[string]json.RawMessage) device {
	return device{AppID: p.AppID, Pushkey: p.Pushkey, PushkeyTS: p.TS / 1000, Data: p.data, Tweaks: tweaks}
}

func (p *pusher) eventIDOnly() bool { return string(p.data["format"]) == `"event_id_only"` }

// deliver sends a notification, again and again until the gateway takes it or it is too late. It tells whether the gateway rejects the
// pusher.
func (p *pusher) deliver(ctx context.Context, n *notification, until time.Time) (rejected bool, err error) {
	body, err := httputil.Marshal(map[string]any{"notification": n})
	if err != nil {
		return false, err
	}
	for wait := retryFirst; ; wait = min(2*wait, retryLast) {
		if rejected, err = p.post(ctx, body); err == nil || ctx.Err() != nil {
			return rejected, err
		}
		log := p.Log.WithError(err).WithFields(logrus.Fields{"user": p.UserID, "app_id": p.AppID, "gateway": p.host})
		if time.Now().Add(wait).After(until) {
			log.Warn("a notification is given up: the gateway does not take it")
			return false, nil
		}
		log.WithField("again_in", wait).Info("a gateway does not take a notification now")
		sleep(ctx, wait)
	}
}

func (p *pusher) post(ctx context.Context, body []byte) (rejected bool, err error) {
	leave, err := p.gateway(ctx, p.host)
	if err != nil {
		return false, err
	}
	defer leave()
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url, bytes.NewReader(body))
	if err != nil {
		return false, err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := p.Client().Do(request)
	if err != nil {
		return false, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return false, err
	}
	if response.StatusCode != http.StatusOK {
		return false, fmt.Errorf("the gateway answers with status %d", response.StatusCode)
	}
	var said struct {
		Rejected []string `json:"rejected"`
	}
	if json.Unmarshal(answer, &said) != nil {
		return false, nil // it has taken the notification, whatever it says
	}
	return slices.Contains(said.Rejected, p.Pushkey), nil
}
