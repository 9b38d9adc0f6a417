package sqlutil

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"

	"modernc.org/sqlite"
)

// copyPages is how many pages of an SQLite file are copied from one report to the next.
const copyPages = 4096

// CopySQLite copies an SQLite database as it is at one moment into a new file, whether a server writes to it or not. It
// tells how many bytes of how many it has copied. The new file is checked.
func CopySQLite(ctx context.Context, from, to string, copied func(done, total int64)) error {
	if _, err := os.Stat(from); err != nil {
		return fmt.Errorf("copying %s: %w", from, err)
	}
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("copying %s: %w", from, err)
	}
	if err = f.Close(); err == nil {
		err = onConnection(ctx, from, func(conn *sql.Conn) error { return copySnapshot(ctx, conn, to, copied) })
	}
	if err == nil {
		err = onConnection(ctx, to, func(conn *sql.Conn) error { return quickCheck(ctx, conn) })
	}
	if err != nil {
		return fmt.Errorf("copying %s: %w", from, err)
	}
	return nil
}

func onConnection(ctx context.Context, path string, do func(*sql.Conn) error) error {
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(10000)")
	if err != nil {
		return err
	}
	conn, err := db.Conn(ctx)
	if err == nil {
		err = errors.Join(do(conn), conn.Close())
	}
	return errors.Join(err, db.Close())
}

// copySnapshot copies inside a transaction that reads: its snapshot is what is copied, whatever others write meanwhile.
func copySnapshot(ctx context.Context, conn *sql.Conn, to string, copied func(done, total int64)) error {
	var size int64
	_, err := conn.ExecContext(ctx, "BEGIN")
	if err == nil {
		// A transaction has its snapshot from its first read on.
		err = conn.QueryRowContext(ctx, `SELECT COUNT(*) FROM sqlite_master`).Scan(new(int))
	}
	if err == nil {
		err = conn.QueryRowContext(ctx, "PRAGMA page_size").Scan(&size)
	}
	if err != nil {
		return err
	}
	err = conn.Raw(func(raw any) error {
		source, is := raw.(interface {
			NewBackup(string) (*sqlite.Backup, error)
		})
		if !is {
			return errors.New("the driver of SQLite cannot copy a database")
		}
		b, err := source.NewBackup("file:" + to)
		if err != nil {
			return err
		}
		for more := true; more && err == nil; {
			if err = ctx.Err(); err != nil {
				break
			}
			if more, err = b.Step(copyPages); err == nil {
				total := int64(b.PageCount()) * size
				copied(total-int64(b.Remaining())*size, total)
			}
		}
		return errors.Join(err, b.Finish())
	})
	_, ended := conn.ExecContext(context.WithoutCancel(ctx), "ROLLBACK")
	return errors.Join(err, ended)
}

func quickCheck(ctx context.Context, conn *sql.Conn) error {
	var found string
	if err := conn.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&found); err != nil {
		return fmt.Errorf("checking the copy: %w", err)
	}
	if found != "ok" {
		return fmt.Errorf("the database is damaged: %s: restore an earlier backup", found)
	}
	return nil
}
