package storage

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"

	"github.com/tidwall/gjson"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// AccountData is one entry of a user's account data.
type AccountData struct {
	UserID  id.UserID
	RoomID  id.RoomID // empty for what is of no room
	Type    string
	Pos     int64
	Content json.RawMessage
}

// PushRules is the type under which a user's push rules are kept and shown.
const PushRules = "m.push_rules"

// IgnoredUsers is the type of the account data that names whom a user ignores.
const IgnoredUsers = "m.ignored_user_list"

// InvitePermission is the type of the account data that says whether a user wants invites.
const InvitePermission = "m.invite_permission_config"

// BlocksInvites tells whether the content of InvitePermission, which may be nil, says that the user wants none.
func BlocksInvites(content json.RawMessage) bool {
	return gjson.GetBytes(content, "default_action").Str == "block"
}

// IgnoredIn lists whom the content of IgnoredUsers names.
func IgnoredIn(content json.RawMessage) []id.UserID {
	var users []id.UserID
	gjson.GetBytes(content, "ignored_users").ForEach(func(name, _ gjson.Result) bool {
		if user, err := id.ParseUserID(name.Str); err == nil {
			users = append(users, user) // what is no user id is nobody
		}
		return true
	})
	return users
}

type accountDataTable struct {
	table[AccountData]
	since, one, ofTypes, withRules, rules, ignored, permissions *sqlutil.Stmt
}

func newAccountDataTable(db *sqlutil.DB) accountDataTable {
	t := accountDataTable{table: table[AccountData]{name: "syncapi_account_data",
		key: []string{"user_id", "room_id", "type"}, replaces: true, columns: []column[AccountData]{
			col("user_id", func(a *AccountData) *id.UserID { return &a.UserID }),
			col("room_id", func(a *AccountData) *id.RoomID { return &a.RoomID }),
			col("type", func(a *AccountData) *string { return &a.Type }),
			col("pos", func(a *AccountData) *int64 { return &a.Pos }),
			jsonCol("content", func(a *AccountData) *json.RawMessage { return &a.Content }),
		}}.on(db)}
	t.since = db.Stmt(`SELECT ` + t.list("data") + ` FROM syncapi_account_data data
		WHERE data.user_id = $1 AND data.pos > $2 AND data.pos <= $3 ORDER BY data.pos`)
	t.one = db.Stmt(`SELECT content FROM syncapi_account_data WHERE user_id = $1 AND room_id = $2 AND type = $3`)
	t.ofTypes = db.Stmt(`SELECT type, content FROM syncapi_account_data
		WHERE user_id = $1 AND room_id = '' AND type = ANY($2)`)

	// The types are written out: each of the first two has an index of its own.
	t.withRules = db.Stmt(`SELECT user_id, LENGTH(content) FROM syncapi_account_data
		WHERE type = 'm.push_rules' AND room_id = ''`)
	t.rules = db.Stmt(`SELECT user_id, content FROM syncapi_account_data
		WHERE type = 'm.push_rules' AND room_id = '' AND user_id = ANY($1)`)
	t.ignored = db.Stmt(`SELECT user_id, content FROM syncapi_account_data
		WHERE type = 'm.ignored_user_list' AND room_id = ''`)
	t.permissions = db.Stmt(`SELECT user_id, content FROM syncapi_account_data
		WHERE type = 'm.invite_permission_config' AND room_id = '' AND user_id = ANY($1)`)
	return t
}

// AccountData returns the account data of a user that changed after a position and up to another.
func (d *Database) AccountData(ctx context.Context, tx *sqlutil.Tx, user id.UserID, after, upTo int64,
) ([]AccountData, error) {
	return d.accountData.read(ctx, tx, d.accountData.since, user, after, upTo)
}

// AccountDataOne returns one entry of account data; nil if there is none.
func (d *Database) AccountDataOne(ctx context.Context, tx *sqlutil.Tx, user id.UserID, room id.RoomID, dataType string,
) (json.RawMessage, error) {
	var content string
	err := d.accountData.one.QueryRow(ctx, tx, user, room, dataType).Scan(&content)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return json.RawMessage(content), err
}

// AccountDataOf returns entries of a user's account data that are of no room, by type, as far as there are.
func (d *Database) AccountDataOf(ctx context.Context, tx *sqlutil.Tx, user id.UserID, types ...string,
) (map[string]json.RawMessage, error) {
	return contents[string](d.accountData.ofTypes.Query(ctx, tx, user, sqlutil.Array(types)))
}

// WithRules returns the users who have changed their push rules, and how long what is stored of these is.
func (d *Database) WithRules(ctx context.Context, tx *sqlutil.Tx) (map[id.UserID]int, error) {
	all := make(map[id.UserID]int)
	rows, err := d.accountData.withRules.Query(ctx, tx)
	_, err = sqlutil.Collect(rows, err, func(rows *sql.Rows) (struct{}, error) {
		var user id.UserID
		var length int
		err := rows.Scan(&user, &length)
		all[user] = length
		return struct{}{}, err
	})
	return all, err
}

// RulesOf returns the push rules of those of the users who have changed theirs.
func (d *Database) RulesOf(ctx context.Context, tx *sqlutil.Tx,
	users []id.UserID) (map[id.UserID]json.RawMessage, error) {
	return contents[id.UserID](d.accountData.rules.Query(ctx, tx, sqlutil.Array(users)))
}

// Ignored returns whom each user ignores who ignores somebody.
func (d *Database) Ignored(ctx context.Context, tx *sqlutil.Tx) (map[id.UserID][]id.UserID, error) {
	lists, err := contents[id.UserID](d.accountData.ignored.Query(ctx, tx))
	all := make(map[id.UserID][]id.UserID, len(lists))
	for user, content := range lists {
		if ignored := IgnoredIn(content); len(ignored) > 0 {
			all[user] = ignored
		}
	}
	return all, err
}

// BlockInvites returns those of the users who want no invites.
func (d *Database) BlockInvites(ctx context.Context, tx *sqlutil.Tx, users []id.UserID) ([]id.UserID, error) {
	permissions, err := contents[id.UserID](d.accountData.permissions.Query(ctx, tx, sqlutil.Array(users)))
	var block []id.UserID
	for user, content := range permissions {
		if BlocksInvites(content) {
			block = append(block, user)
		}
	}
	return block, err
}

// contents reads rows of account data, by what is beside it.
func contents[K ~string](rows *sql.Rows, err error) (map[K]json.RawMessage, error) {
	all := make(map[K]json.RawMessage)
	_, err = sqlutil.Collect(rows, err, func(rows *sql.Rows) (struct{}, error) {
		var key K
		var content string
		err := rows.Scan(&key, &content)
		all[key] = json.RawMessage(content)
		return struct{}{}, err
	})
	return all, err
}
