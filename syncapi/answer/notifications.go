package answer

import (
	"context"
	"math"
	"slices"
	"strconv"

	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/common/sqlutil"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/syncapi/notify"
	"github.com/matrix-org/dendrite/syncapi/pushrules"
	"github.com/matrix-org/dendrite/syncapi/storage"
)

const (
	notificationRows   = 50 // of each room that are looked at together
	notificationRounds = 10 // beyond, the client has to ask for the next page
	// notificationBytes bounds the events of a page: beyond, too, the client has to ask for the next.
	notificationBytes = 1 << 20
)

// NotificationsRequest is GET /notifications.
type NotificationsRequest struct {
	UserID     id.UserID
	DeviceID   id.DeviceID
	Before     int64 // position; 0: the newest
	Limit      int
	Highlights bool // only these
}

// notification is an event that notified the user.
type notification struct {
	notify.Candidate
	result pushrules.Result
}

// Notifications lists what has notified a user, newest first. Nothing is kept for it: the user's rules, as they are now, are applied to
// the events of the user's rooms.
func (e *Engine) Notifications(ctx context.Context, req *NotificationsRequest) (httputil.Raw, error) {
	e.Barrier(ctx)
	window, err := e.Hub.Look(ctx, req.UserID, 0, math.MaxInt64)
	if err != nil {
		return httputil.Raw{}, err
	}
	view, judge := window.View, notify.Judge{Room: e.Room, Events: e.Events}
	rules := notify.RulesOf(req.UserID, view)
	upTo := window.UpTo
	if req.Before > 0 {
		upTo = min(upTo, req.Before-1)
	}
	var found []notification
	next, bytes := int64(0), 0
	for round := 0; ; round++ {
		if next = upTo + 1; round == notificationRounds {
			break
		}
		var rows []storage.TimelineRow
		err := e.Storage.Read(ctx, "notifications", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
			rows, err = e.Storage.Newest(ctx, tx, view.Joined, 0, upTo, notificationRows)
			return err
		})
		if err != nil {
			return httputil.Raw{}, err
		}
		from := completeFrom(rows)
		rows = append(rows, notify.Invites(view, 0)...)
		rows = slices.DeleteFunc(rows, func(row storage.TimelineRow) bool { return row.Pos < from || row.Pos > upTo })
		slices.SortFunc(rows, func(a, b storage.TimelineRow) int { return int(b.Pos - a.Pos) })
		candidates, err := judge.Candidates(ctx, req.UserID, view, rows)
		if err != nil {
			return httputil.Raw{}, err
		}
		for i := range candidates {
			c := &candidates[i]
			result, err := judge.Evaluate(ctx, rules, &c.Row, c.Event.PDU)
			if err != nil {
				return httputil.Raw{}, err
			}
			if !result.Notify || req.Highlights && !result.Highlight {
				continue
			}
			if len(found) == req.Limit || bytes >= notificationBytes {
				break
			}
			found, bytes = append(found, notification{*c, result}), bytes+len(c.Event.PDU.JSON())
		}
		if len(found) > 0 && (len(found) == req.Limit || bytes >= notificationBytes) {
			next = found[len(found)-1].Row.Pos
			break
		}
		if from == 0 {
			next = 0
			break
		}
		upTo = from - 1
	}
	read, err := e.readPlaces(ctx, req.UserID, found)
	if err != nil {
		return httputil.Raw{}, err
	}
	return httputil.Raw{Body: writeNotifications(req, found, read, next)}, nil
}

// completeFrom is the position from which on the rows are all that there are; 0 if that is the beginning.
func completeFrom(rows []storage.TimelineRow) (from int64) {
	n := make(map[id.RoomID]int)
	for i := range rows {
		n[rows[i].RoomID]++
	}
	oldest := make(map[id.RoomID]bool)
	for i := range rows {
		if room := rows[i].RoomID; !oldest[room] && n[room] >= notificationRows {
			from = max(from, rows[i].Pos)
		}
		oldest[rows[i].RoomID] = true
	}
	return from
}

// readPlaces tells which of the events the user has read.
func (e *Engine) readPlaces(ctx context.Context, user id.UserID, found []notification) (map[id.EventID]bool, error) {
	var rooms []id.RoomID
	for i := range found {
		if room := found[i].Row.RoomID; !slices.Contains(rooms, room) {
			rooms = append(rooms, room)
		}
	}
	places := make(map[id.RoomID]int64)
	receipts := make(map[id.RoomID][]storage.Receipt)
	err := e.Storage.Read(ctx, "what is read", func(ctx context.Context, tx *sqlutil.Tx) error {
		unread, err := e.Storage.Unread(ctx, tx, user, rooms)
		for i := range unread {
			places[unread[i].RoomID] = unread[i].Place
		}
		for _, room := range rooms {
			if err == nil {
				receipts[room], err = e.Storage.ReceiptsOf(ctx, tx, room, user)
			}
		}
		return err
	})
	read := make(map[id.EventID]bool)
	for i := range found {
		row := &found[i].Row
		thread := string(row.Thread)
		if thread == "" {
			thread = "main"
		}
		read[row.EventID] = row.Pos <= places[row.RoomID] || slices.ContainsFunc(receipts[row.RoomID], func(r storage.Receipt) bool {
			return r.Thread == thread && row.Pos <= r.Place
		})
	}
	return read, err
}

func writeNotifications(req *NotificationsRequest, found []notification, read map[id.EventID]bool, next int64) []byte {
	o := &out{b: []byte(`{"notifications":[`)}
	viewer := roomserver.Viewer{UserID: req.UserID, DeviceID: req.DeviceID}
	for i := range found {
		f := &found[i]
		o.comma()
		o.raw(`{"actions":[`)
		for _, action := range f.result.Actions {
			o.comma()
			o.b = append(o.b, action...)
		}
		o.raw(`],"event":`)
		o.b = f.Event.AppendClient(o.b, viewer, pdu.ClientOptions{})
		o.raw(`,"read":` + strconv.FormatBool(read[f.Row.EventID]))
		o.key("room_id")
		o.text(string(f.Row.RoomID))
		o.raw(`,"ts":`)
		o.number(f.Row.Pos / 1000)
		o.raw(`}`)
	}
	o.raw(`]`)
	if next > 0 {
		o.key("next_token")
		o.text(strconv.FormatInt(next, 10))
	}
	o.raw(`}`)
	return o.b
}
