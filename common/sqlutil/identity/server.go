// Package identity keeps in each database whose it is: the name of the server, which never changes, and the keys with
// which it has signed. Every process and every tool claims a database before it uses it.
package identity

import (
	"context"
	"errors"
	"fmt"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

const schema = `
CREATE TABLE IF NOT EXISTS sqlutil_server (id BIGINT PRIMARY KEY, name TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS sqlutil_keys (key_id TEXT PRIMARY KEY, public_key BYTEA NOT NULL, since BIGINT NOT NULL,
	used BIGINT NOT NULL);
`

// ErrAnotherServer says that a database belongs to a server of another name.
var ErrAnotherServer = errors.New("the database is another server's")

// ForeignUser finds a user among those of this server, in the tables of a component, who is not of the server with a
// name: its id, or nothing.
type ForeignUser func(ctx context.Context, db *sqlutil.DB, server id.ServerName) (string, error)

// Claim makes a database that has no name yet the server's, if all its own users in it are the server's. It fails with
// ErrAnotherServer if the database is another's.
func Claim(ctx context.Context, db *sqlutil.DB, server id.ServerName, foreign ...ForeignUser) error {
	if err := db.Script(ctx, schema); err != nil {
		return fmt.Errorf("the name of the server in the database: %w", err)
	}
	if name, err := Name(ctx, db); err != nil || name != "" {
		return errors.Join(err, agrees(name, server))
	}
	if err := Check(ctx, db, server, foreign...); err != nil {
		return err
	}
	insert := db.Stmt(`INSERT INTO sqlutil_server (id, name) VALUES (1, $1) ON CONFLICT (id) DO NOTHING`)
	err := db.Write(ctx, "name the server", func(ctx context.Context, tx *sqlutil.Tx) error {
		_, err := insert.Exec(ctx, tx, string(server))
		return err
	})
	if err != nil {
		return err
	}
	name, err := Name(ctx, db) // another process may have been quicker
	return errors.Join(err, agrees(name, server))
}

// Check is Claim for who only looks: it changes nothing, and a database without tables is nobody's.
func Check(ctx context.Context, db *sqlutil.DB, server id.ServerName, foreign ...ForeignUser) error {
	name, err := Name(ctx, db)
	if err != nil || name != "" {
		return errors.Join(err, agrees(name, server))
	}
	for _, find := range foreign {
		user, err := find(ctx, db, server)
		if err != nil {
			return fmt.Errorf("the users in the database: %w", err)
		}
		if user != "" {
			return fmt.Errorf("%w: it has the user %s, and matrix.server_name is %s: a server cannot be renamed: "+
				"write the name that its users have, or give %[3]s a database of its own",
				ErrAnotherServer, user, server)
		}
	}
	return nil
}

func agrees(name, server id.ServerName) error {
	if name == "" || name == server {
		return nil
	}
	return fmt.Errorf("%w: it belongs to %s, and matrix.server_name is %s: a server cannot be renamed: "+
		"write %[2]s, or give %[3]s a database of its own", ErrAnotherServer, name, server)
}

// Name is the name of the server in a database, or nothing if nobody has claimed it.
func Name(ctx context.Context, db *sqlutil.DB) (id.ServerName, error) {
	name, err := first[id.ServerName](ctx, db, `SELECT name FROM sqlutil_server WHERE id = 1`)
	if sqlutil.IsNoTable(err) {
		return "", nil
	}
	return name, err
}

// Foreign runs the query of a ForeignUser, whose parameter is the server's name, if the component has tables.
func Foreign(ctx context.Context, db *sqlutil.DB, component, query string, server id.ServerName) (string, error) {
	version, err := first[int](ctx, db, `SELECT version FROM sqlutil_migrations WHERE component = $1 AND version > 0`,
		component)
	if sqlutil.IsNoTable(err) {
		return "", nil
	}
	if err != nil || version == 0 {
		return "", err
	}
	return first[string](ctx, db, query, string(server))
}

// first is what the first row of a query has in its column, or nothing.
func first[T any](ctx context.Context, db *sqlutil.DB, query string, args ...any) (value T, err error) {
	err = db.ReadOne(ctx, "identity", func(ctx context.Context, tx *sqlutil.Tx) error {
		rows, err := db.Stmt(query).Query(ctx, tx, args...)
		if err != nil {
			return err
		}
		defer rows.Close() //nolint:errcheck // rows.Err says what there is to say
		if rows.Next() {
			if err := rows.Scan(&value); err != nil {
				return err
			}
		}
		return rows.Err()
	})
	return value, err
}
