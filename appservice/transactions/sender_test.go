package transactions

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/tidwall/gjson"

	"github.com/matrix-org/dendrite/appservice/storage"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/common/registration"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/common/test"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
)

// fake is an application service that keeps what it gets, and does what it is told to do.
type fake struct {
	*httptest.Server
	t  *testing.T
	id string

	mu      sync.Mutex
	do      func(n int, w http.ResponseWriter, r *http.Request) (took bool) // nil: it takes everything
	n       int
	bodies  map[string][]byte // by transaction
	order   []string          // transactions, as they came first
	takes   map[string]bool
	events  []string // of transactions that it took, each once
	changed chan struct{}
}

func newFake(t *testing.T, name string) *fake {
	f := &fake{t: t, id: name, bodies: make(map[string][]byte), takes: make(map[string]bool),
		changed: make(chan struct{})}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Server.Close)
	return f
}

func (f *fake) does(do func(n int, w http.ResponseWriter, r *http.Request) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.do = do
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	txn := path.Base(r.URL.Path)
	f.mu.Lock()
	if before, has := f.bodies[txn]; !has {
		if len(f.order) > 0 {
			last := f.order[len(f.order)-1]
			if !f.takes[last] {
				f.t.Errorf("%s got %s before it took %s", f.id, txn, last)
			}
			a, _ := strconv.ParseInt(last, 10, 64)
			if b, err := strconv.ParseInt(txn, 10, 64); err != nil || b <= a {
				f.t.Errorf("%s got transaction %s after %s", f.id, txn, last)
			}
		}
		f.order, f.bodies[txn] = append(f.order, txn), body
	} else if !bytes.Equal(before, body) {
		f.t.Errorf("%s got %s again with another body", f.id, txn)
	}
	if n := len(gjson.GetBytes(body, "events").Array()); n > maxEvents {
		f.t.Errorf("%s got %d events at once", f.id, n)
	}
	f.n++
	n, do := f.n, f.do
	f.mu.Unlock()
	took := do == nil || do(n, w, r)
	f.mu.Lock()
	if took && !f.takes[txn] {
		f.takes[txn] = true
		f.events = append(f.events, eventsOf(body)...)
	}
	close(f.changed)
	f.changed = make(chan struct{})
	f.mu.Unlock()
	if do == nil {
		_, _ = io.WriteString(w, "{}")
	}
}

// await waits until the service has got so many events.
func (f *fake) await(n int) {
	f.t.Helper()
	deadline := time.After(60 * time.Second)
	for {
		f.mu.Lock()
		got, changed := len(f.events), f.changed
		f.mu.Unlock()
		if got >= n {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			f.t.Fatalf("%s has got %d events of %d", f.id, got, n)
		}
	}
}

// bench is a Sender with its queues, and the services that it sends to.
type bench struct {
	t      *testing.T
	store  *storage.Store
	held   *registration.Holder
	fakes  map[string]*fake
	client *http.Client
	bad    map[id.EventID]error // events that the roomserver cannot tell
	queued map[string][]string
	fails  int                // how often the roomserver fails from now on, whatever it is asked
	flaky  map[id.EventID]int // how often the roomserver fails with an event from now on
	asked  func()             // called when the roomserver is asked next

	companions []Companions
	sender     *Sender
	stop       func()
	mu         sync.Mutex
}

func benches(t *testing.T, names []string, body func(t *testing.T, b *bench)) {
	t.Run("sqlite", func(t *testing.T) { body(t, newBench(t, "file:"+filepath.Join(t.TempDir(), "as.db"), names)) })
	t.Run("postgres", func(t *testing.T) { body(t, newBench(t, test.Postgres(t), names)) })
}

func newBench(t *testing.T, connection string, names []string) *bench {
	t.Helper()
	db, err := sqlutil.Open(t.Context(), sqlutil.Options{ConnectionString: connection}, sqlutil.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, fakes: make(map[string]*fake), queued: make(map[string][]string), bad: make(map[id.EventID]error),
		client: &http.Client{Timeout: 500 * time.Millisecond, Transport: &http.Transport{},
			CheckRedirect: func(*http.Request, []*http.Request) error {
				return http.ErrUseLastResponse
			}}}
	if b.store, err = storage.Open(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	var all []*registration.Registration
	for _, name := range names {
		b.fakes[name] = newFake(t, name)
		all = append(all, &registration.Registration{ID: name, URL: b.fakes[name].URL, ASToken: "as-" + name,
			HSToken: "hs", Sender: id.NewUserID(name, "here")})
	}
	set, err := registration.NewSet("here", all)
	if err != nil {
		t.Fatal(err)
	}
	b.held = registration.NewHolder(set)
	b.start()
	t.Cleanup(func() {
		b.stop()
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// start starts a Sender, as after a start of the process.
func (b *bench) start() {
	ctx, cancel := context.WithCancel(b.t.Context())
	log := logrus.New()
	log.SetOutput(io.Discard)
	b.sender = NewSender(Options{Store: b.store, Registrations: b.held, Do: b.do, Log: logrus.NewEntry(log), Now: time.Now,
		Events: &Events{Query: b.query}, Companions: b.companions, FirstWait: 5 * time.Millisecond, LastWait: 50 * time.Millisecond})
	var running sync.WaitGroup
	running.Go(func() {
		if err := b.sender.Run(ctx); err != nil {
			b.t.Error(err)
		}
	})
	b.stop = func() {
		cancel()
		running.Wait()
	}
}

// do is what outgoing.Client does, in short.
func (b *bench) do(ctx context.Context, r *registration.Registration, method, path, _ string, _ url.Values,
	body []byte) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, r.URL+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	res, err := b.client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = res.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(res.Body, 1<<16))
	return res.StatusCode, answer, err
}

// query is the roomserver's.
func (b *bench) query(_ context.Context, req roomserver.QueryEventsRequest) (
	res roomserver.QueryEventsResponse, err error) {
	b.mu.Lock()
	b.fails--
	fails, asked := b.fails >= 0, b.asked
	b.asked = nil
	b.mu.Unlock()
	if asked != nil {
		asked()
	}
	if fails {
		return res, errors.New("no statement can be run")
	}
	for _, i := range req.EventIDs {
		b.mu.Lock()
		bad, is := b.bad[i]
		if b.flaky[i] > 0 {
			bad, is = errors.New("a statement failed"), true
			if len(req.EventIDs) == 1 {
				b.flaky[i]--
			}
		}
		b.mu.Unlock()
		if is && bad != nil {
			return res, bad
		}
		if is {
			continue
		}
		e, err := pdu.ParseTrusted("11", i,
			[]byte(`{"content":{"body":"x"},"room_id":"!r:here","sender":"@a:here","type":"x"}`))
		if err != nil {
			return res, err
		}
		res.Events = append(res.Events, roomserver.Event{PDU: e})
	}
	return res, nil
}

// queue adds events for a service.
func (b *bench) queue(service string, n int) {
	b.t.Helper()
	var rows []storage.Event
	for range n {
		event := fmt.Sprintf("$%s-%d", service, len(b.queued[service]))
		b.queued[service] = append(b.queued[service], event)
		rows = append(rows, storage.Event{Service: service, RoomID: "!r:here", EventID: id.EventID(event), QueuedMS: 1})
	}
	err := b.store.DB.Write(b.t.Context(), "queue", func(ctx context.Context, tx *sqlutil.Tx) error {
		return b.store.Queue(ctx, tx, slices.Clone(rows), 1)
	})
	if err != nil {
		b.t.Fatal(err)
	}
	b.sender.Wake(service)
}

// has waits until a service has all that was queued, and checks the order.
func (b *bench) has(service string) {
	b.t.Helper()
	f := b.fakes[service]
	f.await(len(b.queued[service]))
	f.mu.Lock()
	defer f.mu.Unlock()
	if !slices.Equal(f.events, b.queued[service]) {
		b.t.Errorf("%s has got %d events, in another order than they were queued", service, len(f.events))
	}
}

// misbehave is one of the things that services do wrong. It tells whether the service has taken the transaction
// after all.
func misbehave(random *rand.Rand, w http.ResponseWriter, r *http.Request) (took bool) {
	switch random.IntN(9) {
	case 0:
		w.WriteHeader(http.StatusInternalServerError)
	case 1:
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, `{"errcode":"M_NOT_FOUND"}`)
	case 2: // it hangs
		<-r.Context().Done()
	case 3: // a body without an end
		for r.Context().Err() == nil {
			if _, err := w.Write(bytes.Repeat([]byte{' '}, 1<<12)); err != nil {
				break
			}
		}
	case 4:
		http.Redirect(w, r, "http://192.0.2.1/", http.StatusFound)
	case 5:
		_, _ = io.WriteString(w, "<html>")
	case 6: // it took the transaction, and its answer is lost
		took = true
		panic(http.ErrAbortHandler)
	default:
		took = true
		_, _ = io.WriteString(w, "{}")
	}
	return took
}

// Services misbehave and the process dies, at random: each gets every event, in order, in transactions that never
// change, and one that behaves well gets its events meanwhile.
func TestNothingIsLostDoubledOrReordered(t *testing.T) {
	names := []string{"good", "bad", "worse"}
	benches(t, names, func(t *testing.T, b *bench) {
		seed := test.Seed(t)
		random := rand.New(rand.NewPCG(seed, 1))
		for i, name := range names[1:] {
			var mu sync.Mutex
			theirs := rand.New(rand.NewPCG(seed, uint64(i)+2))
			f := b.fakes[name]
			f.does(func(_ int, w http.ResponseWriter, r *http.Request) (took bool) {
				mu.Lock()
				one := rand.New(rand.NewPCG(theirs.Uint64(), 0))
				mu.Unlock()
				defer func() {
					if v := recover(); v != nil { // its answer is lost
						f.note(path.Base(r.URL.Path))
						panic(v)
					}
				}()
				return misbehave(one, w, r)
			})
		}
		for range test.Soak(60, 2000) {
			switch random.IntN(6) {
			case 0:
				b.stop()
				b.start()
			case 1:
				b.sender.Alive(names[random.IntN(len(names))])
			default:
				b.queue(names[random.IntN(len(names))], 1+random.IntN(250))
			}
			b.has("good")
		}
		for _, name := range names[1:] {
			b.fakes[name].does(nil)
			b.has(name)
		}
	})
}

// note notes a transaction that is taken although its answer does not arrive.
func (f *fake) note(txn string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.takes[txn] {
		return
	}
	f.takes[txn] = true
	f.events = append(f.events, eventsOf(f.bodies[txn])...)
}

// eventsOf lists the events of a transaction.
func eventsOf(body []byte) (ids []string) {
	for _, e := range gjson.GetBytes(body, "events.#.event_id").Array() {
		ids = append(ids, e.Str)
	}
	return ids
}

// An event that cannot be read is left out (A1), whether the roomserver does not have it or fails with it.
func TestAPoisonEventDoesNotStopTheStream(t *testing.T) {
	benches(t, []string{"one"}, func(t *testing.T, b *bench) {
		b.mu.Lock()
		b.bad["$one-3"], b.bad["$one-70"], b.bad["$one-150"] = errors.New("corrupt"), nil, errors.New("corrupt")
		b.mu.Unlock()
		b.queue("one", 200)
		b.queued["one"] = slices.DeleteFunc(b.queued["one"], func(e string) bool {
			_, is := b.bad[id.EventID(e)]
			return is
		})
		b.has("one")
		// A roomserver that fails for a while with some, and not with all, loses nothing.
		b.mu.Lock()
		b.flaky = map[id.EventID]int{"$one-198": 10}
		b.mu.Unlock()
		b.queue("one", 3)
		b.has("one")
		// A roomserver that fails with everything is waited for: nothing is left out.
		b.mu.Lock()
		b.fails = 3 * asks
		b.mu.Unlock()
		b.queue("one", 1)
		b.has("one")
	})
}

// A backlog is sent in full transactions (A2), at once when the service shows that it is alive (A4).
func TestABacklogLeavesInFullTransactions(t *testing.T) {
	benches(t, []string{"one"}, func(t *testing.T, b *bench) {
		f := b.fakes["one"]
		tried := make(chan struct{}, 1000)
		f.does(func(_ int, w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(http.StatusBadGateway)
			tried <- struct{}{}
			return false
		})
		b.sender.FirstWait, b.sender.LastWait = time.Hour, time.Hour
		b.queue("one", 1)
		<-tried
		b.queue("one", 1000)
		f.does(nil)
		b.sender.Alive("one")
		b.has("one")
		f.mu.Lock()
		defer f.mu.Unlock()
		if n := len(f.order); n > 1+11 {
			t.Errorf("1,001 events were sent in %d transactions", n)
		}
	})
}

func TestSkippedTransactionsAreNotSentAgain(t *testing.T) {
	benches(t, []string{"one"}, func(t *testing.T, b *bench) {
		f := b.fakes["one"]
		tried := make(chan struct{}, 1000)
		f.does(func(_ int, w http.ResponseWriter, r *http.Request) bool {
			f.mu.Lock()
			first := f.order[0] == path.Base(r.URL.Path)
			f.takes[f.order[0]] = true // the next one may come although this is not taken
			f.mu.Unlock()
			if first {
				w.WriteHeader(http.StatusBadGateway)
				tried <- struct{}{}
				return false
			}
			_, _ = io.WriteString(w, "{}")
			return true
		})
		b.queue("one", 150)
		<-tried
		err := b.store.DB.Write(t.Context(), "skip", func(ctx context.Context, tx *sqlutil.Tx) error {
			n, err := b.store.Skip(ctx, tx, "one", false)
			if n != 100 && n != 0 {
				t.Errorf("%d events are skipped", n)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		b.sender.Alive("one")
		b.queued["one"] = b.queued["one"][100:]
		b.has("one")
	})
}

// unwanted is a Companions with something that a service does not want any more.
type unwanted struct{ removed chan struct{} }

func (u *unwanted) Waiting(context.Context) ([]string, error) { return []string{"one"}, nil }

func (u *unwanted) Collect(context.Context, *registration.Registration, []id.UserID) (part Part, err error) {
	select {
	case <-u.removed:
	default:
		part.Taken = func(_ context.Context, tx *sqlutil.Tx) error {
			tx.AfterCommit(func() { close(u.removed) })
			return nil
		}
	}
	return part, nil
}

func TestWhatAServiceDoesNotWantGoesWithoutATransaction(t *testing.T) {
	benches(t, []string{"one"}, func(t *testing.T, b *bench) {
		b.stop()
		u := &unwanted{removed: make(chan struct{})}
		b.companions = []Companions{u}
		b.start()
		<-u.removed
		b.queue("one", 1)
		b.has("one")
	})
}
