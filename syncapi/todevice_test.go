package syncapi_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidwall/gjson"

	clientapi "github.com/matrix-org/dendrite/clientapi/api"
	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/syncapi/api"
)

// devices is a clientapi with devices that are deleted.
type devices struct {
	w     *world
	topic *eventlog.Topic

	mu      sync.Mutex
	of      map[id.UserID][]id.DeviceID
	listed  func()      // runs when devices were listed, before the answer goes out
	dry     id.DeviceID // the dehydrated one of everybody
	listing int
}

// withDevices makes the world one in which users have devices.
func withDevices(w *world, of map[id.UserID][]id.DeviceID) *devices {
	t := w.t
	t.Helper()
	d := &devices{w: w, of: of}
	log, err := eventlog.New(t.Context(), w.db, "fakeclient", eventlog.Options{Sole: true})
	if err != nil {
		t.Fatal(err)
	}
	if d.topic, err = log.Topic(t.Context(), clientapi.Topic, nil); err != nil {
		t.Fatal(err)
	}
	w.stop()
	// It is another clientapi than that of before.
	if err := w.db.Script(t.Context(), `DELETE FROM syncapi_log_offsets WHERE consumer = 'user'`); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.transport.Relay(ctx, log) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	w.client = &clientapi.ClientAPI{ReadLog: d.topic.Read, Heads: d.topic.Heads,
		QueryDevices: func(_ context.Context, q clientapi.QueryDevicesRequest) (clientapi.QueryDevicesResponse, error) {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.listing++
			res := clientapi.QueryDevicesResponse{Devices: make(map[id.UserID][]id.DeviceID)}
			for _, user := range q.UserIDs {
				res.Devices[user] = d.of[user]
			}
			if d.listed != nil {
				d.listed()
			}
			return res, nil
		},
		QueryDehydratedDevice: func(context.Context, clientapi.QueryDehydratedDeviceRequest) (res clientapi.QueryDehydratedDeviceResponse, err error) {
			if d.dry == "" {
				return res, mxerr.NotFound("none")
			}
			res.DeviceID = d.dry
			return res, nil
		}}
	w.start()
	return d
}

// delete tells that a device is deleted; none stands for all.
func (d *devices) delete(user id.UserID, device id.DeviceID) {
	d.w.t.Helper()
	err := d.w.db.Write(d.w.t.Context(), "fake client", func(ctx context.Context, tx *sqlutil.Tx) error {
		d.topic.Append(ctx, tx, string(user), clientapi.TypeDeviceDeleted, &clientapi.OutputDevice{UserID: user, DeviceID: device})
		return nil
	})
	if err != nil {
		d.w.t.Error(err)
	}
}

func (w *world) toDevice(txn string, messages kv) error {
	w.t.Helper()
	_, err := w.call(bob, "send_to_device", map[string]string{"eventType": "x", "txnId": txn}, "", kv{"messages": messages})
	return err
}

func (w *world) mustToDevice(txn string, messages kv) {
	w.t.Helper()
	if err := w.toDevice(txn, messages); err != nil {
		w.t.Fatal(err)
	}
}

// column reads the only column of rows.
func column[V any](w *world, query string) []V {
	w.t.Helper()
	var all []V
	err := w.db.Read(w.t.Context(), "test", func(ctx context.Context, tx *sqlutil.Tx) error {
		rows, err := w.db.Stmt(query).Query(ctx, tx)
		all, err = sqlutil.Collect(rows, err, func(rows *sql.Rows) (v V, err error) {
			err = rows.Scan(&v)
			return v, err
		})
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return all
}

// rowsBecome waits until a table has so many rows.
func (w *world) rowsBecome(table string, want int64) {
	w.t.Helper()
	var got int64
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		if got = column[int64](w, `SELECT COUNT(*) FROM `+table)[0]; got == want {
			return
		}
	}
	w.t.Errorf("%s has %d rows, want %d", table, got, want)
}

func sentTo(sync gjson.Result) string {
	var all []string
	for _, e := range sync.Get("to_device.events").Array() {
		all = append(all, e.Get("content.n").String())
	}
	return strings.Join(all, " ")
}

// A device that is deleted while a message to it is sent gets none; one that is made anew with its id does.
func TestADeviceIsDeletedWhileAMessageToItIsSent(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		d := withDevices(w, map[id.UserID][]id.DeviceID{alice: {"DEValice", "OTHER"}})
		for _, gone := range []id.DeviceID{"DEValice", ""} {
			for _, again := range []bool{false, true} {
				name := fmt.Sprintf("%q is gone, and comes again: %v", gone, again)
				d.of = map[id.UserID][]id.DeviceID{alice: {"DEValice", "OTHER"}}
				w.mustToDevice(name+"0", kv{string(alice): kv{"DEValice": kv{"n": "old"}}})
				d.listing = 0
				d.listed = func() {
					if d.listing > 1 {
						return
					}
					d.delete(alice, gone)
					if !again {
						d.of = nil
					}
				}
				w.mustToDevice(name, kv{string(alice): kv{"DEValice": kv{"n": "new"}}})
				d.listed = nil
				if d.listing != 2 {
					t.Errorf("%s: devices are listed %d times, want twice", name, d.listing)
				}
				want := map[bool]string{true: "new"}[again]
				first := w.get(alice, "")
				if got := sentTo(first); got != want {
					t.Errorf("%s: the device gets %q, want %q", name, got, want)
				}
				w.get(alice, next(first))
				w.rowsBecome("syncapi_to_device", 0)
			}
		}
	})
}

// What is sent at once by two replicas with one key, arrives once; and what two replicas hand out comes in one order.
func TestReplicasDeliverMessagesOnce(t *testing.T) {
	w := newWorld(t, postgres(t))
	withDevices(w, map[id.UserID][]id.DeviceID{alice: {"DEValice"}})
	both := w.replicas()
	since := next(both[0].get(alice, ""))
	waiting := both[1].poll(alice, since)
	const n = 30
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			for txn := range n {
				if err := both[i%2].toDevice(fmt.Sprint(txn), kv{string(alice): kv{"*": kv{"n": txn}}}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	if got := receive(t, waiting); !strings.HasPrefix(sentTo(got), "0") {
		t.Errorf("another replica's message wakes with %s", got.Get("to_device").Raw)
	}
	all.Wait()
	got := [2]string{sentTo(both[0].get(alice, since)), sentTo(both[1].get(alice, since))}
	if got[0] != got[1] || len(strings.Fields(got[0])) != n {
		t.Errorf("the replicas hand out\n%s and\n%s", got[0], got[1])
	}
	last := both[0].get(alice, since)
	both[1].get(alice, next(last)) // acknowledged to the one that did not hand it out
	w.rowsBecome("syncapi_to_device", 0)
}

// What is acknowledged is removed, by whatever process it was handed out, and before that nothing is.
func TestWhatIsAcknowledgedIsRemoved(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		withDevices(w, map[id.UserID][]id.DeviceID{alice: {"DEValice", "OTHER"}, carol: {"DEVcarol"}})
		large := strings.Repeat("x", 1000)
		for n := range 3 {
			w.mustToDevice(fmt.Sprint(n), kv{string(alice): kv{"*": kv{"n": n, "x": large}}})
		}
		since := next(w.get(alice, ""))
		w.get(carol, since) // is no token of carol's
		w.get(alice, "")
		w.reopened()
		w.rowsBecome("syncapi_to_device", 6)
		w.get(alice, since)
		w.rowsBecome("syncapi_to_device", 3)
		w.rowsBecome("syncapi_to_device_shared", 3)
		if got := column[string](w, `SELECT DISTINCT device_id FROM syncapi_to_device`); len(got) != 1 || got[0] != "OTHER" {
			t.Errorf("messages are left for %v", got)
		}
		if got := sentTo(w.get(alice, "s1_1_9000000000000000_1")); got != "" {
			t.Errorf("an old token brings %s again", got)
		}
		w.rowsBecome("syncapi_to_device", 3)
	})
}

// A token of a database that was restored may be ahead of everything: it says nothing of the messages that are here.
func TestATokenFromTheFutureLosesNoMessage(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		withDevices(w, map[id.UserID][]id.DeviceID{alice: {"DEValice"}})
		parts := strings.Split(next(w.get(alice, "")), "_")
		parts[1], parts[2] = "9000000000000000000", "9000000000000000000"
		future := strings.Join(parts, "_")
		for n := range 3 {
			w.mustToDevice(fmt.Sprint(n), kv{string(alice): kv{"DEValice": kv{"n": n}}})
		}
		first := w.get(alice, future)
		if got := sentTo(first); got != "0 1 2" {
			t.Errorf("with a token from the future the device gets %q", got)
		}
		w.mustToDevice("3", kv{string(alice): kv{"DEValice": kv{"n": 3}}})
		if got := sentTo(w.get(alice, next(first))); got != "3" {
			t.Errorf("then it gets %q", got)
		}
	})
}

// What is for other servers is one record for each, however large, with the message of each device in one of them.
func TestMessagesForOtherServersAreHandedOver(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		withDevices(w, nil)
		large := strings.Repeat("x", 60_000)
		messages := kv{"@a:one.example": kv{"A": kv{"n": 1}, "*": kv{"n": 2}}, "@b:one.example": kv{"A": kv{"n": 3}}}
		many := kv{}
		for n := range 10 {
			many[fmt.Sprint(n)] = kv{"x": large}
		}
		messages["@c:two.example"] = many
		for range 3 {
			w.mustToDevice("txn", messages)
		}
		records, devices, ids := make(map[id.ServerName]int), make(map[id.ServerName]int), make(map[string]bool)
		partition := eventlog.Partition(string(bob))
		log, err := w.sync.ReadLog(t.Context(), eventlog.ReadRequest{Topic: api.Topic, Partition: partition, From: 1})
		if err != nil {
			t.Fatal(err)
		}
		for i := range log.Records {
			out, err := eventlog.Decode[api.OutputToDevice](&log.Records[i])
			if err != nil {
				t.Fatal(err)
			}
			records[out.Server]++
			ids[out.MessageID] = true
			for user, messages := range out.Messages {
				devices[user.Server()] += len(messages)
			}
			text, err := json.Marshal(out)
			if err != nil || len(text) > 300_000 || len(out.MessageID) > 32 || out.Sender != bob || out.Type != "x" {
				t.Errorf("%d bytes from %s for %s, message id %q; %v", len(text), out.Sender, out.Server, out.MessageID, err)
			}
		}
		if records["one.example"] != 1 || records["two.example"] < 2 || devices["one.example"] != 3 ||
			devices["two.example"] != 10 || len(ids) != len(log.Records) {
			t.Errorf("records %v with messages for %v devices, %d ids", records, devices, len(ids))
		}
	})
}

// A dehydrated device's messages come in pages, as often as they are asked for (MSC3814).
func TestMessagesToADehydratedDevice(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		const dry = "dry/+device"
		d := withDevices(w, map[id.UserID][]id.DeviceID{alice: {dry}})
		events := func(device, query string, body any) (gjson.Result, error) {
			t.Helper()
			name := map[bool]string{true: "dehydrated_events", false: "post_dehydrated_events"}[body == nil]
			return w.call(alice, name, map[string]string{"deviceId": device}, query, body)
		}
		if _, err := events(dry, "", nil); !mxerr.Is(err, "M_FORBIDDEN") {
			t.Errorf("where there is none: %v", err)
		}
		d.dry = dry
		if _, err := events("another", "", nil); !mxerr.Is(err, "M_FORBIDDEN") {
			t.Errorf("of another device: %v", err)
		}
		if _, err := events(dry, "next_batch=x", nil); !mxerr.Is(err, "M_INVALID_PARAM") {
			t.Errorf("with a bad token: %v", err)
		}
		const messages = 150
		for n := range messages {
			w.mustToDevice(fmt.Sprint(n), kv{string(alice): kv{dry: kv{"n": n}}})
		}
		for _, way := range []string{"next_batch", "from", "body", "next_batch"} {
			var sizes []int
			got, token := 0, ""
			for range 5 {
				query, body := way+"="+token, any(nil)
				if way == "body" {
					query, body = "", kv{"next_batch": token}
				}
				page, err := events(dry, query, body)
				if err != nil {
					t.Fatal(err)
				}
				sizes = append(sizes, len(page.Get("events").Array()))
				for _, e := range page.Get("events").Array() {
					if e.Get("content.n").Int() != int64(got) || e.Get("sender").Str != string(bob) || e.Get("type").Str != "x" {
						t.Fatalf("message %d is %s", got, e.Raw)
					}
					got++
				}
				if token = page.Get("next_batch").Str; token == "" {
					break
				}
			}
			if fmt.Sprint(sizes) != "[100 50 0]" {
				t.Errorf("by %s: pages of %v", way, sizes)
			}
		}
	})
}
