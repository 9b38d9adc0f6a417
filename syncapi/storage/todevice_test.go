package storage

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/common/test"
)

// inboxModel is what devices should have.
type inboxModel struct {
	t    *testing.T
	d    *Database
	kept map[id.DeviceID][]ToDevice
	pos  int64
}

func (m *inboxModel) send(devices []id.DeviceID, content string, isShared bool) {
	t, d := m.t, m.d
	t.Helper()
	var shared []Shared
	var number int64
	if isShared {
		var err error
		if number, err = d.SharedIDs(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		shared = []Shared{{ID: number, Refs: len(devices), Content: json.RawMessage(content)}}
	}
	err := d.Commit(t.Context(), "send", func(ctx context.Context, tx *sqlutil.Tx) error {
		AddReading(tx, 1, func(_ context.Context, _ *sqlutil.Tx, pos int64) (*Changes, error) {
			c := new(Changes)
			m.pos = pos
			for _, device := range devices {
				row := ToDevice{UserID: alice, DeviceID: device, Pos: pos, Sender: "@bob:test", Type: "x",
					Size: int64(len(content)), Shared: number, Content: json.RawMessage(content)}
				m.kept[device] = append(m.kept[device], row)
				if isShared {
					row.Content = nil
				}
				c.ToDevice = append(c.ToDevice, row)
			}
			return c, nil
		})
		return d.PutShared(ctx, tx, shared)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// check compares a page with what should be there.
func (m *inboxModel) check(device id.DeviceID, after, upTo int64, limit, maxBytes int) {
	t := m.t
	t.Helper()
	got, err := m.d.ToDevice(t.Context(), alice, device, after, upTo, limit, maxBytes)
	if err != nil {
		t.Fatal(err)
	}
	var want []ToDevice
	size := 0
	for _, one := range m.kept[device] {
		if one.Pos <= after || one.Pos > upTo || len(want) == limit || size >= maxBytes {
			continue
		}
		size += int(one.Size)
		want = append(want, one)
	}
	if a, b := fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", want); a != b {
		t.Fatalf("device %s after %d up to %d, %d of %d bytes:\n%s, want\n%s", device, after, upTo, limit, maxBytes, a, b)
	}
}

func (m *inboxModel) empty(device id.DeviceID, upTo int64) {
	m.t.Helper()
	for more := []Inbox{{alice, device, upTo}}; len(more) > 0; {
		var err error
		if more, err = m.d.EmptyInboxes(m.t.Context(), more); err != nil {
			m.t.Fatal(err)
		}
	}
	m.kept[device] = slices.DeleteFunc(m.kept[device], func(one ToDevice) bool { return one.Pos <= upTo })
}

// delete notes that a device is deleted; none stands for all.
func (m *inboxModel) delete(device id.DeviceID) {
	m.t.Helper()
	err := m.d.Write(m.t.Context(), "gone", 1, func(ctx context.Context, tx *sqlutil.Tx, pos int64) (*Changes, error) {
		return new(Changes), m.d.PutGone(ctx, tx, []Inbox{{alice, device, pos}, {alice, device, pos}})
	})
	if err != nil {
		m.t.Fatal(err)
	}
	for name := range m.kept {
		if name == device || device == "" {
			m.kept[name] = nil
		}
	}
}

func count(t *testing.T, d *Database, table string) (n int) {
	t.Helper()
	err := d.Read(t.Context(), "count", func(ctx context.Context, tx *sqlutil.Tx) error {
		return d.db.Stmt(`SELECT COUNT(*) FROM `+table).QueryRow(ctx, tx).Scan(&n)
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// What was sent is there until it is removed, in order, and nothing is left of what is removed.
func TestMessagesToDevicesAreKeptAsTheyWereSent(t *testing.T) {
	random := rand.New(rand.NewPCG(test.Seed(t), 0))
	each(t, func(t *testing.T, processes []*Database) {
		m := &inboxModel{t: t, d: processes[0], kept: make(map[id.DeviceID][]ToDevice)}
		devices := []id.DeviceID{"A", "B", "C"}
		for n := range test.Soak(300, 5000) {
			m.d = processes[n%len(processes)]
			device := devices[random.IntN(len(devices))]
			var some []id.DeviceID
			for _, one := range devices {
				if random.IntN(2) == 0 {
					some = append(some, one)
				}
			}
			somewhere := func() int64 { return m.pos - 2000 + random.Int64N(4000) }
			switch random.IntN(8) {
			case 0, 1, 2, 3:
				content := fmt.Sprintf(`{"n":%d,"x":%q}`, n, strings.Repeat("x", random.IntN(100)))
				m.send(some, content, random.IntN(2) == 0 && len(some) > 0)
			case 4:
				if kept := m.kept[device]; len(kept) > 0 {
					m.empty(device, kept[random.IntN(len(kept))].Pos)
				}
			case 5:
				if random.IntN(4) == 0 {
					m.delete(append(devices, "")[random.IntN(4)])
				}
			}
			m.check(device, 0, m.pos, 1000, 1<<20)
			m.check(device, somewhere(), somewhere(), 1+random.IntN(5), 1+random.IntN(300))
		}
		m.delete("")
		inboxes, err := m.d.InboxesOf(t.Context(), alice, m.pos)
		if err != nil {
			t.Fatal(err)
		}
		for _, in := range inboxes {
			m.empty(in.DeviceID, m.pos)
		}
		for _, table := range []string{"syncapi_to_device", "syncapi_to_device_shared"} {
			if n := count(t, m.d, table); n != 0 {
				t.Errorf("%s still has %d rows of messages that are removed", table, n)
			}
		}
	})
}

// A page of an inbox costs the same however many messages there are, and so does its removal.
func TestAPageOfALargeInboxCostsTheSame(t *testing.T) {
	const messages = 100_000
	each(t, func(t *testing.T, processes []*Database) {
		d := processes[0]
		err := d.db.Script(t.Context(), fmt.Sprintf(`INSERT INTO syncapi_to_device
			(user_id, device_id, pos, sender, type, size, shared, content)
			WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < %d)
			SELECT '%s', 'A', n, '@bob:test', 'x', 2, 0, '{}' FROM n`, messages, alice))
		if err != nil {
			t.Fatal(err)
		}
		for _, after := range []int64{0, messages / 2, messages - 100} {
			for what, stmt := range map[string]string{"page": d.toDevice.page.String(), "remove": d.toDevice.remove.String()} {
				args := []any{alice, "A", after, messages, 101}
				if what == "remove" {
					args = []any{alice, "A", messages, emptyBatch}
				}
				if rows := rowsRead(t, d, stmt, args); rows > emptyBatch {
					t.Errorf("%s after %d reads %d rows", what, after, rows)
				}
			}
		}
		if pos, err := d.InboxBeyond(t.Context(), alice, "A", 10); err != nil || pos != messages-10 {
			t.Errorf("beyond the newest 10 is %d, %v", pos, err)
		}
		if pos, err := d.InboxBeyond(t.Context(), alice, "A", messages); err != nil || pos != 0 {
			t.Errorf("beyond all is %d, %v", pos, err)
		}
		steps := 0
		for more := []Inbox{{alice, "A", messages}}; len(more) > 0; steps++ {
			if more, err = d.EmptyInboxes(t.Context(), more); err != nil {
				t.Fatal(err)
			}
		}
		if n := count(t, d, "syncapi_to_device"); n != 0 || steps > messages/emptyBatch+1 {
			t.Errorf("after %d steps %d messages are left", steps, n)
		}
	})
}

// rowsRead is the greatest number of rows that a step of a statement's plan has had; on SQLite, which does not tell, it
// is whether a step looks through a table.
func rowsRead(t *testing.T, d *Database, text string, args []any) (rows int) {
	t.Helper()
	explain := "EXPLAIN (ANALYZE, FORMAT JSON) "
	if d.db.Dialect() == sqlutil.SQLite {
		explain = "EXPLAIN QUERY PLAN "
	}
	err := d.db.Write(t.Context(), "plan", func(ctx context.Context, tx *sqlutil.Tx) error {
		lines, err := d.db.Stmt(explain+text).Query(ctx, tx, args...)
		if d.db.Dialect() == sqlutil.SQLite {
			steps, err := sqlutil.Collect(lines, err, func(rows *sql.Rows) (step string, err error) {
				var id, parent, unused int
				err = rows.Scan(&id, &parent, &unused, &step)
				return step, err
			})
			for _, step := range steps {
				if strings.HasPrefix(step, "SCAN syncapi") || strings.Contains(step, "AUTOMATIC") {
					rows = 1 << 30
				}
			}
			return err
		}
		plans, err := readColumn[[]byte](lines, err)
		if err != nil {
			return err
		}
		var plan []struct{ Plan planNode }
		if err := json.Unmarshal(plans[0], &plan); err != nil {
			return err
		}
		rows = plan[0].Plan.most()
		return errUndo
	})
	if err != nil && err.Error() != errUndo.Error() {
		t.Fatal(err)
	}
	return rows
}

var errUndo = fmt.Errorf("only to look")

type planNode struct {
	Rows    float64    `json:"Actual Rows"`
	Removed float64    `json:"Rows Removed by Filter"`
	Loops   float64    `json:"Actual Loops"`
	Plans   []planNode `json:"Plans"`
}

func (p planNode) most() int {
	n := int((p.Rows + p.Removed) * p.Loops)
	for _, child := range p.Plans {
		n = max(n, child.most())
	}
	return n
}

// Transactions are remembered until they are old, and no more is removed at a time than was asked for.
func TestTransactionsOfSendersArePruned(t *testing.T) {
	each(t, func(t *testing.T, processes []*Database) {
		d := processes[0]
		put := func(n byte, ts int64) (isNew bool) {
			t.Helper()
			err := d.Commit(t.Context(), "test", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
				isNew, err = d.PutToDeviceTxn(ctx, tx, []byte{n}, ts)
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			return isNew
		}
		for n := range byte(10) {
			if !put(n, int64(n)) || put(n, 100) {
				t.Fatalf("transaction %d", n)
			}
		}
		for _, want := range []int64{3, 3, 2, 0} {
			if n, err := d.PruneToDeviceTxns(t.Context(), 8, 3); err != nil || n != want {
				t.Errorf("%d are pruned, want %d; %v", n, want, err)
			}
		}
		if !put(7, 0) || put(8, 0) {
			t.Error("what is forgotten is new, and nothing else")
		}
	})
}

// What is told of messages fits into one message to other replicas, however many devices get one.
func TestWhatIsToldOfManyMessagesIsBounded(t *testing.T) {
	c := new(Changes)
	for user := range 2000 {
		for device := range touchedDevices {
			c.ToDevice = append(c.ToDevice, ToDevice{UserID: id.UserID(fmt.Sprintf("@user%d:example.org", user)),
				DeviceID: id.DeviceID(fmt.Sprintf("DEVICE%d", device))})
		}
	}
	told, err := json.Marshal(c.AllTouched())
	if err != nil || len(told) > 256<<10 || strings.Count(string(told), "user1999:") != 1 {
		t.Errorf("%d bytes; %v", len(told), err)
	}
}
