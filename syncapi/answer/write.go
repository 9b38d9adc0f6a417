package answer

import (
	"slices"
	"strconv"
	"time"

	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/pdu"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/syncapi/filter"
	"github.com/matrix-org/dendrite/syncapi/presence"
	"github.com/matrix-org/dendrite/syncapi/storage"
	"github.com/matrix-org/dendrite/syncapi/stream"
)

// out appends JSON. Events have their JSON already, which is copied as it is.
type out struct{ b []byte }

func marshal(v any) ([]byte, error) { return httputil.Marshal(v) }

func (o *out) raw(s string) { o.b = append(o.b, s...) }

func (o *out) text(s string) {
	o.b = pdu.AppendString(o.b, s)
}

func (o *out) number(n int64) { o.b = strconv.AppendInt(o.b, n, 10) }

// comma separates members: it writes nothing after an opening bracket.
func (o *out) comma() {
	if last := o.b[len(o.b)-1]; last != '{' && last != '[' {
		o.b = append(o.b, ',')
	}
}

func (o *out) key(name string) {
	o.comma()
	o.text(name)
	o.b = append(o.b, ':')
}

// list writes an array.
func (o *out) list(name string, n int, one func(i int)) {
	o.key(name)
	o.raw(`[`)
	for i := range n {
		o.comma()
		one(i)
	}
	o.raw(`]`)
}

// batch writes {"events": […]}.
func (o *out) batch(name string, n int, event func(i int)) {
	o.key(name)
	o.raw(`{`)
	o.list("events", n, event)
	o.raw(`}`)
}

func (o *out) event(eventType string, content func()) {
	o.raw(`{"content":`)
	content()
	o.raw(`,"type":`)
	o.text(eventType)
	o.raw(`}`)
}

func (a *answering) write() []byte {
	if a.initial() {
		a.addPushRules()
	}
	o := &out{b: a.Lend(a.size())}
	o.raw(`{"next_batch":`)
	o.text(a.next.String())
	o.writeAccountData(a.accountData)
	o.raw(`,"rooms":{`)
	for _, section := range []string{join, invite, knock, leave} {
		o.key(section)
		o.raw(`{`)
		for name, r := range a.rooms {
			if r.kind.section() == section {
				o.key(string(name))
				a.writeRoom(o, r)
			}
		}
		o.raw(`}`)
	}
	o.raw(`}`)
	o.batch("presence", len(a.presence), func(i int) { o.presence(&a.presence[i]) })
	a.writeToDevice(o)
	a.writeDeviceLists(o)
	a.writeKeyCounts(o)
	o.raw(`}`)
	return o.b
}

// size is about that of the answer.
func (a *answering) size() int {
	size := 1024
	for i := range a.messages {
		size += 256 + len(a.messages[i].Content)
	}
	for _, r := range a.rooms {
		size += 512
		for _, events := range [][]*roomserver.Event{r.state, r.timeline} {
			for _, e := range events {
				size += len(e.PDU.JSON())
			}
		}
	}
	return size
}

func (o *out) presence(p *stream.Presence) {
	o.raw(`{"content":`)
	o.b = AppendPresence(o.b, p)
	o.raw(`,"sender":`)
	o.text(string(p.UserID))
	o.raw(`,"type":"m.presence"}`)
}

// AppendPresence writes the content of m.presence, which is also the answer of GET /presence.
func AppendPresence(dst []byte, p *stream.Presence) []byte {
	o := &out{b: append(dst, '{')}
	o.key("presence")
	o.text(string(p.State))
	if p.Active > 0 {
		o.key("last_active_ago")
		o.number(max(0, time.Now().UnixMilli()-p.Active))
	}
	if p.StatusMsg != "" {
		o.key("status_msg")
		o.text(p.StatusMsg)
	}
	o.key("currently_active")
	o.raw(strconv.FormatBool(p.State == presence.Online))
	o.raw(`}`)
	return o.b
}

func (a *answering) writeRoom(o *out, r *room) {
	o.raw(`{`)
	defer o.raw(`}`)
	if r.kind == invited || r.kind == knocked {
		o.batch(r.kind.section()+"_state", len(r.stripped), func(i int) { o.b = append(o.b, r.stripped[i]...) })
		return
	}
	if s := r.summary; s != nil {
		o.key("summary")
		o.raw(`{`)
		if s.heroes != nil {
			o.key("m.heroes")
			o.raw(`[`)
			for _, hero := range s.heroes {
				o.comma()
				o.text(string(hero))
			}
			o.raw(`]`)
		}
		o.key("m.joined_member_count")
		o.number(s.joined)
		o.key("m.invited_member_count")
		o.number(s.invited)
		o.raw(`}`)
	}
	state := "state"
	if a.StateAfter {
		state = "state_after"
	}
	a.writeEvents(o, state, r.state)
	a.writeEvents(o, "timeline", r.timeline)
	o.b = o.b[:len(o.b)-1]
	o.key("limited")
	o.raw(strconv.FormatBool(r.limited))
	o.key("prev_batch")
	o.text(r.prevBatch(a))
	o.raw(`}`)
	o.writeAccountData(r.accountData)
	if r.kind.section() == leave {
		return
	}
	a.writeEphemeral(o, r)
	if r.counts != nil {
		o.key("unread_notifications")
		o.counts(*r.counts)
	}
	if len(r.threads) > 0 {
		o.key("unread_thread_notifications")
		o.raw(`{`)
		for thread, counts := range r.threads {
			o.key(string(thread))
			o.counts(counts)
		}
		o.raw(`}`)
	}
}

func (o *out) counts(c storage.Counts) {
	o.raw(`{`)
	o.key("highlight_count")
	o.number(c.Highlight)
	o.key("notification_count")
	o.number(c.Notify)
	o.raw(`}`)
}

func (a *answering) writeEvents(o *out, name string, events []*roomserver.Event) {
	viewer := a.viewer()
	options := pdu.ClientOptions{Fields: a.Filter.EventFields, Federation: a.Filter.EventFormat == filter.FormatFederation}
	o.batch(name, len(events), func(i int) { o.b = events[i].AppendClient(o.b, viewer, options) })
}

func (o *out) writeAccountData(data []storage.AccountData) {
	o.batch("account_data", len(data), func(i int) { o.accountData(&data[i]) })
}

func (o *out) accountData(d *storage.AccountData) {
	o.event(d.Type, func() { o.b = append(o.b, d.Content...) })
}

// writeEphemeral writes who types, and receipts: one event for each thread, because one user may have read the same event in
// several of them.
func (a *answering) writeEphemeral(o *out, r *room) {
	threads := make(map[string][]storage.Receipt)
	var names []string
	if a.showsReceipts(r) {
		for _, receipt := range r.receipts {
			if !a.seesReceipt(&receipt) {
				continue
			}
			if threads[receipt.Thread] == nil {
				names = append(names, receipt.Thread)
			}
			threads[receipt.Thread] = append(threads[receipt.Thread], receipt)
		}
	}
	n := len(names)
	if r.typing != nil {
		n++
	}
	o.batch("ephemeral", n, func(i int) {
		if i == len(names) {
			o.event("m.typing", func() {
				o.raw(`{"user_ids":[`)
				for _, user := range r.typing.Users {
					if _, ignored := a.window.View.Ignored[user]; ignored {
						continue
					}
					o.comma()
					o.text(string(user))
				}
				o.raw(`]}`)
			})
			return
		}
		o.event("m.receipt", func() { o.receipts(threads[names[i]]) })
	})
}

// receipts writes the content of m.receipt: by event, type and user. Of two receipts of one user the last counts.
func (o *out) receipts(receipts []storage.Receipt) {
	type place struct {
		user        id.UserID
		receiptType string
	}
	last := make(map[place]int, len(receipts))
	for i := range receipts {
		last[place{receipts[i].UserID, receipts[i].Type}] = i
	}
	byEvent := make(map[id.EventID]map[string][]storage.Receipt)
	var events []id.EventID
	for i := range receipts {
		r := &receipts[i]
		if last[place{r.UserID, r.Type}] != i {
			continue
		}
		if byEvent[r.EventID] == nil {
			byEvent[r.EventID] = make(map[string][]storage.Receipt)
			events = append(events, r.EventID)
		}
		byEvent[r.EventID][r.Type] = append(byEvent[r.EventID][r.Type], *r)
	}
	slices.Sort(events)
	o.raw(`{`)
	for _, event := range events {
		o.key(string(event))
		o.raw(`{`)
		for _, receiptType := range []string{storage.Read, storage.ReadPrivate} {
			if len(byEvent[event][receiptType]) == 0 {
				continue
			}
			o.key(receiptType)
			o.raw(`{`)
			for _, r := range byEvent[event][receiptType] {
				o.key(string(r.UserID))
				o.raw(`{`)
				if r.Thread != "" {
					o.key("thread_id")
					o.text(r.Thread)
				}
				o.key("ts")
				o.number(r.TS)
				o.raw(`}`)
			}
			o.raw(`}`)
		}
		o.raw(`}`)
	}
	o.raw(`}`)
}
