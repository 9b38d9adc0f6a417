package storage

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// ToDevice is a message to a device.
type ToDevice struct {
	UserID   id.UserID
	DeviceID id.DeviceID
	Pos      int64
	Sender   id.UserID
	Type     string
	Size     int64 // of the content, in bytes
	// Shared is the number of the content where several messages have it: Content of a row that is written is empty then.
	Shared  int64
	Content json.RawMessage
}

// Shared is content that several messages have.
type Shared struct {
	ID      int64
	Refs    int // how many
	Content json.RawMessage
}

// Inbox is what a device has of messages up to a position; where DeviceID is empty, what all devices of the user have.
type Inbox struct {
	UserID   id.UserID
	DeviceID id.DeviceID
	Pos      int64
}

// How many devices of a user are told of one by one, and of how many messages at a time: beyond, all devices of the user
// are taken to have something new. What is told has to fit into one message to other replicas.
const (
	touchedDevices  = 8
	touchedMessages = 1000
)

// touchedByMessages says for whom there are messages.
func touchedByMessages(messages []ToDevice) []Touched {
	devices := make(map[id.UserID]int)
	for i := range messages {
		devices[messages[i].UserID]++
	}
	all := make([]Touched, len(messages))
	for i := range messages {
		m := &messages[i]
		all[i] = Touched{Kind: KindToDevice, User: m.UserID}
		if devices[m.UserID] <= touchedDevices && len(messages) <= touchedMessages {
			all[i].Device = m.DeviceID
		}
	}
	return all
}

// emptyBatch is how many messages one statement removes.
const emptyBatch = 1000

type toDeviceTable struct {
	table[ToDevice]
	shared                                         *sqlutil.Insert
	page, remove, beyond, devices, unref, dropFree *sqlutil.Stmt
}

func newToDeviceTable(db *sqlutil.DB) toDeviceTable {
	t := toDeviceTable{table: table[ToDevice]{name: "syncapi_to_device",
		key: []string{"user_id", "device_id", "pos"}, columns: []column[ToDevice]{
			col("user_id", func(m *ToDevice) *id.UserID { return &m.UserID }),
			col("device_id", func(m *ToDevice) *id.DeviceID { return &m.DeviceID }),
			col("pos", func(m *ToDevice) *int64 { return &m.Pos }),
			col("sender", func(m *ToDevice) *id.UserID { return &m.Sender }),
			col("type", func(m *ToDevice) *string { return &m.Type }),
			col("size", func(m *ToDevice) *int64 { return &m.Size }),
			col("shared", func(m *ToDevice) *int64 { return &m.Shared }),
			jsonCol("content", func(m *ToDevice) *json.RawMessage { return &m.Content }),
		}}.on(db)}
	t.shared = db.Insert("syncapi_to_device_shared", []string{"id", "refs", "content"}, "")
	t.page = db.Stmt(`SELECT one.user_id, one.device_id, one.pos, one.sender, one.type, one.size, one.shared,
			COALESCE(shared.content, one.content)
		FROM syncapi_to_device one
		LEFT JOIN syncapi_to_device_shared shared ON one.shared <> 0 AND shared.id = one.shared
		WHERE one.user_id = $1 AND one.device_id = $2 AND one.pos <= $4 AND one.pos > GREATEST($3,
			COALESCE((SELECT MAX(gone.pos) FROM syncapi_gone_devices gone
				WHERE gone.user_id = $1 AND gone.device_id IN ($2, '')), 0))
		ORDER BY one.pos LIMIT $5`)
	// A range, which can only be looked for in one way.
	t.remove = db.Stmt(`DELETE FROM syncapi_to_device WHERE user_id = $1 AND device_id = $2
		AND pos <= LEAST($3::bigint, COALESCE((SELECT pos FROM syncapi_to_device
			WHERE user_id = $1 AND device_id = $2 ORDER BY pos LIMIT 1 OFFSET $4 - 1), $3::bigint)) RETURNING shared`)
	t.beyond = db.Stmt(`SELECT pos FROM syncapi_to_device WHERE user_id = $1 AND device_id = $2
		ORDER BY pos DESC LIMIT 1 OFFSET $3`)
	// Each step goes to the next device, whatever this one has.
	t.devices = db.Stmt(`WITH RECURSIVE devices (device_id) AS (
			SELECT MIN(device_id) FROM syncapi_to_device WHERE user_id = $1
			UNION ALL SELECT (SELECT MIN(device_id) FROM syncapi_to_device
				WHERE user_id = $1 AND device_id > devices.device_id) FROM devices WHERE device_id IS NOT NULL)
		SELECT device_id FROM devices WHERE device_id IS NOT NULL`)
	t.unref = db.Stmt(`UPDATE syncapi_to_device_shared SET refs = refs - 1 WHERE id = ANY($1)`)
	t.dropFree = db.Stmt(`DELETE FROM syncapi_to_device_shared WHERE id = ANY($1) AND refs <= 0`)
	return t
}

// PutShared writes contents that several messages have. It belongs before the positions are taken: it may be much.
func (d *Database) PutShared(ctx context.Context, tx *sqlutil.Tx, contents []Shared) error {
	if len(contents) == 0 {
		return nil
	}
	rows := make([][]any, len(contents))
	for i, c := range contents {
		rows[i] = []any{c.ID, c.Refs, string(c.Content)}
	}
	_, err := d.toDevice.shared.Exec(ctx, tx, rows)
	return err
}

// SharedIDs returns the first of n numbers for contents that several messages have.
func (d *Database) SharedIDs(ctx context.Context, n int) (int64, error) {
	return d.db.IDs("syncapi_to_device_shared").Next(ctx, int64(n))
}

// ToDevice returns the first messages to a device after a position and up to another: at most limit, and no more after
// those that together have maxBytes. What was sent to an earlier device of this id is not among them.
func (d *Database) ToDevice(
	ctx context.Context, user id.UserID, device id.DeviceID, after, upTo int64, limit, maxBytes int,
) (messages []ToDevice, err error) {
	err = d.db.ReadOne(ctx, "messages to a device", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
		messages, err = d.toDevice.read(ctx, tx, d.toDevice.page, user, device, after, upTo, limit)
		return err
	})
	// The statement does not cut by size: to sum up the rows before each, SQLite would copy all of them.
	var size int64
	for i := range messages {
		if size >= int64(maxBytes) {
			messages = messages[:i]
			break
		}
		size += messages[i].Size
	}
	if err != nil {
		return nil, fmt.Errorf("messages to device %s of %s: %w", device, user, err)
	}
	return messages, nil
}

// EmptyInboxes removes the messages of devices up to positions, those of all with one transaction as far as one
// statement for each goes. It returns those that have more.
func (d *Database) EmptyInboxes(ctx context.Context, inboxes []Inbox) (more []Inbox, err error) {
	err = d.db.Write(ctx, "empty inboxes", func(ctx context.Context, tx *sqlutil.Tx) error {
		more = nil
		var all []int64
		for _, in := range inboxes {
			shared, err := readColumn[int64](d.toDevice.remove.Query(ctx, tx, in.UserID, in.DeviceID, in.Pos, emptyBatch))
			if err != nil {
				return err
			}
			if len(shared) == emptyBatch {
				more = append(more, in)
			}
			all = append(all, shared...)
		}
		return d.unref(ctx, tx, all)
	})
	if err != nil {
		return nil, fmt.Errorf("empty inboxes: %w", err)
	}
	return more, nil
}

// InboxesOf returns the inboxes of a user's devices for which there are messages, up to a position.
func (d *Database) InboxesOf(ctx context.Context, user id.UserID, pos int64) (inboxes []Inbox, err error) {
	err = d.db.ReadOne(ctx, "inboxes of a user", func(ctx context.Context, tx *sqlutil.Tx) error {
		rows, err := d.toDevice.devices.Query(ctx, tx, user)
		inboxes, err = sqlutil.Collect(rows, err, func(rows *sql.Rows) (Inbox, error) {
			in := Inbox{UserID: user, Pos: pos}
			err := rows.Scan(&in.DeviceID)
			return in, err
		})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("inboxes of %s: %w", user, err)
	}
	return inboxes, nil
}

// unref counts messages that are removed, by the numbers of their contents, 0 for those that share none.
func (d *Database) unref(ctx context.Context, tx *sqlutil.Tx, shared []int64) error {
	for len(shared) > 0 {
		// Each message counts. One statement changes a row once.
		ids, again := make(map[int64]struct{}), []int64(nil)
		for _, one := range shared {
			if _, has := ids[one]; has {
				again = append(again, one)
			} else if one != 0 {
				ids[one] = struct{}{}
			}
		}
		if len(ids) == 0 {
			return nil
		}
		list := sqlutil.Array(slices.Sorted(maps.Keys(ids)))
		if _, err := d.toDevice.unref.Exec(ctx, tx, list); err != nil {
			return err
		}
		if _, err := d.toDevice.dropFree.Exec(ctx, tx, list); err != nil {
			return err
		}
		shared = again
	}
	return nil
}

// InboxBeyond returns the position of the newest message of a device that is not among its newest keep; 0 if all are.
func (d *Database) InboxBeyond(ctx context.Context, user id.UserID, device id.DeviceID, keep int) (pos int64, err error) {
	err = d.db.ReadOne(ctx, "inbox beyond its bound", func(ctx context.Context, tx *sqlutil.Tx) error {
		return d.toDevice.beyond.QueryRow(ctx, tx, user, device, keep).Scan(&pos)
	})
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return 0, fmt.Errorf("inbox of device %s of %s: %w", device, user, err)
	}
	return pos, nil
}
