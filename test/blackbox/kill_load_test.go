package blackbox

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidwall/gjson"
)

const (
	loadWriters = 8
	loadReaders = 3
	loadRooms   = 3
	loadEvery   = 60 * time.Millisecond // between the sends of a writer
	loadState   = "x.load"              // the type of the state that writers set
	// recoverWithin is how long a writer or a reader may be without progress.
	recoverWithin = 45 * time.Second
	loadTimeline  = "&filter=%7B%22room%22%3A%7B%22timeline%22%3A%7B%22limit%22%3A50%7D%7D%7D" // 50 events of a room at once
)

// load is writers that send, each one message after the other, and readers that sync. Both repeat a request as it is until it
// succeeds, on one public listener after the other.
type load struct {
	t       *testing.T
	d       *deployment
	rooms   []string
	writers []*writer
	readers []*reader
	failed  chan error // what no repetition mends
	writing context.CancelFunc
	reading context.CancelFunc
	running sync.WaitGroup
}

// pulse is how steadily something goes on.
type pulse struct {
	mutex   sync.Mutex
	beats   int
	last    time.Time
	longest time.Duration
}

func (p *pulse) beat() {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.beats++
	p.longest, p.last = max(p.longest, time.Since(p.last)), time.Now()
}

func (p *pulse) reset() {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.longest, p.last = 0, time.Now()
}

// read returns how many beats there were ever, and the longest time between two since the last reset.
func (p *pulse) read() (beats int, longest time.Duration) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	return p.beats, max(p.longest, time.Since(p.last))
}

// acknowledgement is a message that a writer knows to be sent.
type acknowledgement struct{ room, text, event string }

type writer struct {
	*client
	pulse
	name         string
	random       *rand.Rand
	acknowledged []acknowledgement // for the writer's goroutine, until it has ended
	retried      int
	set          map[string]int // by room, the last value that the writer has set for its own state there
	newest       atomic.Pointer[acknowledgement]
	leave, left  atomic.Bool // it is to end; it has ended
}

type reader struct {
	*client
	pulse
	since string
	gaps  int // limited timelines
	lock  sync.Mutex
	seen  map[string]bool     // every event
	order map[string][]string // messages, by room
}

func newLoad(t *testing.T, d *deployment, seed uint64) *load {
	t.Helper()
	l := &load{t: t, d: d, failed: make(chan error, loadWriters+loadReaders)}
	for i := range loadWriters {
		name := fmt.Sprintf("writer%d", i)
		l.writers = append(l.writers, &writer{client: d.user(t, name), name: name, set: make(map[string]int), random: rand.New(rand.NewPCG(seed, uint64(i)+1))})
	}
	for range loadRooms {
		l.rooms = append(l.rooms, l.writers[0].createRoom(object{"preset": "public_chat",
			"power_level_content_override": object{"events": object{loadState: 0}}}))
	}
	for i := range loadReaders {
		l.readers = append(l.readers, &reader{client: d.user(t, fmt.Sprintf("reader%d", i)), seen: make(map[string]bool), order: make(map[string][]string)})
	}
	for _, room := range l.rooms {
		for _, w := range l.writers[1:] {
			w.join(room)
		}
		for _, r := range l.readers {
			r.join(room)
		}
	}
	for _, r := range l.readers {
		r.since = r.sync("").Get("next_batch").Str
	}
	return l
}

func (l *load) start() {
	l.resetPulses()
	run := func(do func(ctx context.Context) error) context.CancelFunc {
		ctx, cancel := context.WithCancel(l.t.Context())
		l.running.Go(func() {
			if err := do(ctx); err != nil && ctx.Err() == nil {
				l.failed <- err
			}
		})
		return cancel
	}
	all := func(cancels []context.CancelFunc) context.CancelFunc {
		return func() {
			for _, cancel := range cancels {
				cancel()
			}
		}
	}
	var writing, reading []context.CancelFunc
	for _, w := range l.writers {
		writing = append(writing, run(func(ctx context.Context) error { return w.run(ctx, l.rooms) }))
	}
	for _, r := range l.readers {
		reading = append(reading, run(r.run))
	}
	l.writing, l.reading = all(writing), all(reading)
}

// stop ends what still goes on.
func (l *load) stop() {
	l.writing()
	l.reading()
	l.running.Wait()
}

func (l *load) resetPulses() {
	for _, w := range l.writers {
		w.pulse.reset()
	}
	for _, r := range l.readers {
		r.pulse.reset()
	}
}

// longest is the longest time that any writer was without an acknowledgement, and any reader without news.
func (l *load) longest() (sends, reads time.Duration) {
	for _, w := range l.writers {
		_, longest := w.pulse.read()
		sends = max(sends, longest)
	}
	for _, r := range l.readers {
		_, longest := r.pulse.read()
		reads = max(reads, longest)
	}
	return sends, reads
}

func (l *load) acknowledged() (events int) {
	for _, w := range l.writers {
		beats, _ := w.pulse.read()
		events += beats
	}
	return events
}

// steady lets the load go on for a while.
func (l *load) steady(d time.Duration) {
	l.t.Helper()
	select {
	case err := <-l.failed:
		l.t.Fatal(err)
	case <-time.After(d):
	}
}

// recover waits until every writer has had an acknowledgement, and every reader has what is acknowledged by then.
func (l *load) recover(after string) {
	l.t.Helper()
	deadline := time.Now().Add(recoverWithin)
	for _, w := range l.writers {
		before, _ := w.pulse.read()
		l.until(deadline, "after a kill of "+after+" "+w.name+" can send", func() bool {
			beats, _ := w.pulse.read()
			return beats > before
		})
	}
	l.caughtUp(deadline, "after a kill of "+after)
}

// finish ends the sends, and waits until all readers have everything.
func (l *load) finish() {
	l.t.Helper()
	deadline := time.Now().Add(recoverWithin)
	// A writer that is in the middle of a request repeats it until it succeeds: without that, an event could be there that nobody knows of.
	for _, w := range l.writers {
		w.leave.Store(true)
	}
	for _, w := range l.writers {
		l.until(deadline, w.name+" ends", w.left.Load)
	}
	l.caughtUp(deadline, "at the end")
}

func (l *load) caughtUp(deadline time.Time, when string) {
	l.t.Helper()
	for _, w := range l.writers {
		newest := w.newest.Load()
		for _, r := range l.readers {
			l.until(deadline, fmt.Sprintf("%s %s gets %q, which is %s", when, r.userID, newest.text, newest.event), func() bool { return r.has(newest.event) })
		}
	}
}

// until waits until something holds.
func (l *load) until(deadline time.Time, what string, holds func() bool) {
	l.t.Helper()
	for !holds() {
		if time.Now().After(deadline) {
			l.t.Fatalf("not within %v: %s", recoverWithin, what)
		}
		l.steady(5 * time.Millisecond)
	}
}

// insist sends a request until it succeeds, and returns how often it did not.
func (c *client) insist(ctx context.Context, method, path string, body any) (gjson.Result, int, error) {
	text, err := json.Marshal(body)
	if err != nil {
		return gjson.Result{}, 0, err
	}
	for failures := 0; ; failures++ {
		answer, err := c.attempt(ctx, method, c.d.url()+path, text)
		if err == nil {
			return answer, failures, nil
		}
		if errors.As(err, new(refusal)) || ctx.Err() != nil {
			return answer, failures, err
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// refusal is an answer that the same request gets again.
type refusal struct {
	answer
	request string
}

func (r refusal) Error() string { return fmt.Sprintf("%s: %d %s", r.request, r.status, r.body.Raw) }

func (c *client) attempt(ctx context.Context, method, url string, body []byte) (gjson.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return gjson.Result{}, err
	}
	request.Header.Set("Authorization", "Bearer "+c.token)
	response, err := c.http.Do(request)
	if err != nil {
		return gjson.Result{}, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return gjson.Result{}, err
	}
	if response.StatusCode != http.StatusOK {
		problem := refusal{answer{response.StatusCode, response.Header, gjson.ParseBytes(text)}, method + " " + url}
		switch response.StatusCode {
		case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
			return gjson.Result{}, errors.New(problem.Error()) // which tell to try again
		}
		return gjson.Result{}, problem
	}
	return gjson.ParseBytes(text), nil
}

func (w *writer) run(ctx context.Context, rooms []string) error {
	defer w.left.Store(true)
	tick := time.NewTicker(loadEvery)
	defer tick.Stop()
	for n := 0; !w.leave.Load(); n++ {
		a := acknowledgement{room: rooms[w.random.IntN(len(rooms))], text: fmt.Sprintf("%s %d", w.name, n)}
		path := at("rooms", a.room, "send", "m.room.message", w.txn())
		content := object{"msgtype": "m.text", "body": a.text}
		answer, retried, err := w.insist(ctx, "PUT", path, content)
		if err != nil {
			return err
		}
		w.retried += retried
		a.event = answer.Get("event_id").Str
		// A client that did not hear the answer sends the same again.
		if n%10 == 0 {
			again, _, err := w.insist(ctx, "PUT", path, content)
			if err != nil {
				return err
			}
			if again.Get("event_id").Str != a.event {
				return fmt.Errorf("%q was sent as %s, and the same request again as %s", a.text, a.event, again.Get("event_id").Str)
			}
		}
		if n%7 == 0 {
			if _, _, err := w.insist(ctx, "PUT", at("rooms", a.room, "state", loadState, w.name), object{"n": n}); err != nil {
				return err
			}
			w.set[a.room] = n
		}
		w.acknowledged = append(w.acknowledged, a)
		w.newest.Store(&a)
		w.beat()
		<-tick.C
	}
	return nil
}

func (r *reader) has(event string) bool {
	r.lock.Lock()
	defer r.lock.Unlock()
	return r.seen[event]
}

func (r *reader) run(ctx context.Context) error {
	for {
		answer, _, err := r.insist(ctx, "GET", at("sync")+"?timeout=3000&since="+r.since+loadTimeline, nil)
		if err != nil {
			return err
		}
		for room, news := range answer.Get("rooms.join").Map() {
			events := news.Get("timeline.events").Array()
			if news.Get("timeline.limited").Bool() {
				r.gaps++
				missing, err := r.missing(ctx, room, news.Get("timeline.prev_batch").Str)
				if err != nil {
					return err
				}
				events = append(missing, events...)
			}
			if err := r.take(room, events); err != nil {
				return err
			}
		}
		r.since = answer.Get("next_batch").Str
	}
}

// missing pages back from a limited timeline to what the reader has.
func (r *reader) missing(ctx context.Context, room, from string) (events []gjson.Result, err error) {
	for from != "" {
		page, _, err := r.insist(ctx, "GET", at("rooms", room, "messages")+"?dir=b&limit=50&from="+from, nil)
		if err != nil {
			return nil, err
		}
		from = page.Get("end").Str
		for _, e := range page.Get("chunk").Array() {
			// Before the first sync there were no messages.
			if kind := e.Get("type").Str; r.has(e.Get("event_id").Str) || kind != "m.room.message" && kind != loadState {
				from = ""
				break
			}
			events = append(events, e)
		}
	}
	slices.Reverse(events)
	return events, nil
}

func (r *reader) take(room string, events []gjson.Result) error {
	r.lock.Lock()
	defer r.lock.Unlock()
	for _, e := range events {
		event := e.Get("event_id").Str
		if r.seen[event] {
			return fmt.Errorf("sync gave %s to %s twice", event, r.userID)
		}
		r.seen[event] = true
		if e.Get("type").Str == "m.room.message" {
			r.order[room] = append(r.order[room], event)
			r.beat()
		}
	}
	return nil
}
