package blackbox

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidwall/gjson"

	"github.com/matrix-org/dendrite/common/test"
)

const (
	mailUsers   = 20
	mailDevices = 50
	mailType    = "x.mail"
	mailPage    = 100 // messages that an answer has at most
)

// stored is what a device has once: a token, and how many messages.
type stored struct {
	since    string
	messages int
}

// mailbox is a device that sends messages to others, and gets theirs.
type mailbox struct {
	*client
	work    *toil
	number  int
	send    *rand.Rand // of who sends
	read    *rand.Rand // of who syncs
	sent    int
	to      map[int][]int // by recipient, what was sent, in order
	earlier []func(context.Context) error
	known   []gjson.Result // all messages that ever came, in order
	tokens  []stored
	// acknowledged is how many messages the device has said that it has, by a token that was answered.
	acknowledged int
	expects      atomic.Int64 // how many messages it must get; negative: that is not known yet
	repeats      int          // answers that were asked for again
}

// Devices send each other messages, and repeat what was not answered, and now and then what was. Those who sync take
// some answers as not received, and begin again from a token that they have, also an old one.
func killMail(t *testing.T, d *deployment, seed uint64) {
	puts, kills := test.Soak(1500, 10000), test.Soak(8, 20)
	work := newToil(t)
	boxes := mailboxes(t, d, work, seed)
	for _, b := range boxes {
		work.beside(func(ctx context.Context) error { return b.readAll(ctx, boxes) })
		work.work(func(ctx context.Context, _ int) error { return b.post(ctx, boxes) })
	}
	work.under(d, rand.New(rand.NewPCG(seed, 3<<32)), puts, kills, "clientapi", "syncapi")
	work.await("all is sent", &work.workers)
	for _, b := range boxes {
		total := 0
		for _, from := range boxes {
			total += len(from.to[b.number])
		}
		b.expects.Store(int64(total))
	}
	work.await("all is read", &work.others)
	all, repeats := 0, 0
	for _, b := range boxes {
		all += len(b.known)
		repeats += b.repeats
	}
	t.Logf("%d messages in %d requests reached %d devices; %d answers were asked for again, %d requests failed", all, puts,
		len(boxes), repeats, work.failing.Load())
}

// mailboxes makes users with one device or more each.
func mailboxes(t *testing.T, d *deployment, work *toil, seed uint64) []*mailbox {
	t.Helper()
	var boxes []*mailbox
	for i := range mailDevices {
		b := &mailbox{work: work, number: i, to: make(map[int][]int), send: rand.New(rand.NewPCG(seed, 4<<32+uint64(i))),
			read: rand.New(rand.NewPCG(seed, 5<<32+uint64(i)))}
		if i < mailUsers {
			b.client = d.user(t, fmt.Sprintf("mail%d", i))
		} else {
			b.client = boxes[i%mailUsers].login()
		}
		b.expects.Store(-1)
		boxes = append(boxes, b)
	}
	return boxes
}

// post sends one message to some devices, or to all of a user.
func (b *mailbox) post(ctx context.Context, boxes []*mailbox) error {
	messages := object{}
	content := object{"from": b.number, "n": b.sent}
	to := func(other *mailbox, device string) {
		if messages[other.userID] == nil {
			messages[other.userID] = object{}
		}
		messages[other.userID].(object)[device] = content
	}
	var all string
	if b.send.IntN(4) == 0 {
		other := pick(b.send, boxes)
		all = other.userID
		to(other, "*")
		for _, o := range boxes {
			if o.userID == all {
				b.to[o.number] = append(b.to[o.number], b.sent)
			}
		}
	}
	for range 1 + b.send.IntN(3) {
		other := pick(b.send, boxes)
		if sent := b.to[other.number]; other.userID != all && (len(sent) == 0 || sent[len(sent)-1] != b.sent) {
			to(other, other.deviceID)
			b.to[other.number] = append(sent, b.sent)
		}
	}
	b.sent++
	path := at("sendToDevice", mailType, b.txn())
	put := func(ctx context.Context) error {
		_, err := b.work.insist(ctx, b.client, "PUT", path, object{"messages": messages})
		return err
	}
	if err := put(ctx); err != nil {
		return err
	}
	b.earlier = append(b.earlier, put)
	switch b.send.IntN(10) {
	case 0:
		return put(ctx)
	case 1:
		return pick(b.send, b.earlier)(ctx)
	}
	return nil
}

// readAll syncs until the device has all that it must get, and then once more.
func (b *mailbox) readAll(ctx context.Context, boxes []*mailbox) error {
	var has stored
	var ends time.Time // when it must have everything
	for {
		expects := b.expects.Load()
		complete := expects >= 0 && int64(has.messages) >= expects
		switch {
		case expects >= 0 && ends.IsZero():
			ends = time.Now().Add(recoverWithin)
		case expects >= 0 && time.Now().After(ends):
			return b.check(boxes)
		}
		timeout := pick(b.read, []string{"0", "500", "2000"})
		if complete {
			timeout = "0"
		}
		answer, err := b.work.insist(ctx, b.client, "GET", syncPath(has.since, "timeout", timeout), nil)
		if err != nil {
			return err
		}
		events := answer.Get("to_device.events").Array()
		if complete && len(events) > 0 {
			return fmt.Errorf("%s on %s has %d messages, and gets %v more", b.userID, b.deviceID, has.messages, events)
		}
		next := stored{since: answer.Get("next_batch").Str}
		if next.messages, err = b.take(has.messages, events); err != nil {
			return fmt.Errorf("%s on %s, since %q: %w", b.userID, b.deviceID, has.since, err)
		}
		b.acknowledged = max(b.acknowledged, has.messages)
		if complete {
			return b.check(boxes)
		}
		if b.read.IntN(6) > 0 {
			has = next
			b.tokens = append(b.tokens, next)
			continue
		}
		// The answer is lost, and perhaps all since a token was stored.
		b.repeats++
		switch b.read.IntN(4) {
		case 0:
			has = stored{}
		case 1:
			if len(b.tokens) > 0 {
				has = pick(b.read, b.tokens)
			}
		}
	}
}

// take compares an answer to who has so many messages with what the device knows of the next ones, and adds what is
// new. It returns how many messages who has the answer has. An answer to an old token may leave out what a later one
// has acknowledged, and nothing else.
func (b *mailbox) take(has int, events []gjson.Result) (int, error) {
	for from := has; from <= max(has, b.acknowledged); from++ {
		again := min(len(events), len(b.known)-from)
		if again < len(b.known)-from && len(events) < mailPage {
			continue // something is missing
		}
		same := func(x, y gjson.Result) bool { return x.Raw == y.Raw }
		if !slices.EqualFunc(events[:again], b.known[from:from+again], same) {
			continue
		}
		b.known = append(b.known, events[again:]...)
		return from + len(events), nil
	}
	return 0, fmt.Errorf("%d messages of %d are acknowledged, and who has %d gets %v, which is not what came before: %v",
		b.acknowledged,
		len(b.known), has, events, b.known[has:])
}

// check compares what a device got with what was sent to it.
func (b *mailbox) check(boxes []*mailbox) error {
	got := make([][]int, len(boxes))
	for _, e := range b.known {
		from := int(e.Get("content.from").Int())
		if e.Get("type").Str != mailType || e.Get("sender").Str != boxes[from].userID {
			return fmt.Errorf("%s on %s gets %s", b.userID, b.deviceID, e.Raw)
		}
		got[from] = append(got[from], int(e.Get("content.n").Int()))
	}
	for _, from := range boxes {
		if sent := from.to[b.number]; !slices.Equal(got[from.number], sent) {
			return fmt.Errorf("device %d (%s) sent %d (%s) the messages %v, and %v came", from.number, from.deviceID, b.number,
				b.deviceID, sent, got[from.number])
		}
	}
	return nil
}
