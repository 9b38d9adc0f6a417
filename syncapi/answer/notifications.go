package answer

import (
	"context"
	"math"
	"slices"
	"strconv"

	"github.com/matrix-org/dendrite/common/glob"
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
	// notificationWork is what the user's rules may take for a page, in steps; beyond, too.
	notificationWork = 64 * notify.UserWork
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
	p := &notified{req: req, judge: &judge, rules: notify.NewRules(req.UserID, view.Rules), work: notificationWork}
	upTo := window.UpTo
	if req.Before > 0 {
		upTo = min(upTo, req.Before-1)
	}
	next, full := int64(0), false
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
		if next, full, err = p.take(ctx, candidates); err != nil {
			return httputil.Raw{}, err
		}
		if full || from == 0 {
			break
		}
		upTo = from - 1
	}
	read, err := e.readPlaces(ctx, req.UserID, p.found)
	if err != nil {
		return httputil.Raw{}, err
	}
	return httputil.Raw{Body: writeNotifications(req, p.found, read, next)}, nil
}

// notified is a page of notifications that is being filled.
type notified struct {
	req   *NotificationsRequest
	judge *notify.Judge
	rules *notify.Rules
	work  int // that is left for the page
	bytes int // of its events
	found []notification
}

// take evaluates events, newest first. full tells that the page ends, since it is as long as it may be or has taken as
// much work, and next then is where the page after it begins.
func (p *notified) take(ctx context.Context, candidates []notify.Candidate) (next int64, full bool, err error) {
	for i := range candidates {
		c := &candidates[i]
		switch {
		case p.full():
			return p.found[len(p.found)-1].Row.Pos, true, nil
		case p.work <= 0:
			return c.Row.Pos + 1, true, nil
		}
		w := &glob.Work{Left: notify.UserWork}
		result, err := p.judge.Evaluate(ctx, p.rules, &c.Row, c.Event.PDU, w)
		if err != nil {
			return 0, false, err
		}
		p.work -= notify.UserWork - w.Left
		if result.Notify && (result.Highlight || !p.req.Highlights) {
			p.found, p.bytes = append(p.found, notification{*c, result}), p.bytes+len(c.Event.PDU.JSON())
		}
	}
	if p.full() {
		return p.found[len(p.found)-1].Row.Pos, true, nil
	}
	return 0, false, nil
}

// full tells whether a page is as long as it may be. It has one event at least.
func (p *notified) full() bool {
	return len(p.found) > 0 && (len(p.found) == p.req.Limit || p.bytes >= notificationBytes)
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
