package sqlutil

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// SQLite begins its log anew only at a moment in which nobody reads from it. Where some reader always does, the log
// would grow for ever.
const (
	walKept  = 4 << 20  // bytes that stay of a log that begins anew
	walLimit = 32 << 20 // bytes from which on the writer waits for such a moment
	walWait  = 200 * time.Millisecond
	walEvery = 16 // groups from one look at its length to the next
)

// boundLog cuts a log that has grown too long. A reader that keeps its snapshot for long, such as a backup, is not
// waited for again before the log has grown by as much.
func (w *writer) boundLog() {
	if w.groups++; w.groups%walEvery != 0 {
		return
	}
	info, err := os.Stat(w.path + "-wal")
	if err != nil || info.Size() < w.tooLong {
		return // where it cannot be looked at, SQLite itself says what is wrong
	}
	cut, err := w.cutLog(walWait)
	if cut {
		w.tooLong = walLimit
		return
	}
	w.tooLong = info.Size() + walLimit
	w.db.deps.Log.WithError(err).WithField("bytes", info.Size()).
		Warn("the log of the SQLite file grows: something reads from it for long")
}

// cutLog brings the log into the file and empties it, if there is a moment within wait in which nobody reads from it.
func (w *writer) cutLog(wait time.Duration) (cut bool, err error) {
	ctx := context.Background()
	var busy, length, done int
	_, err = w.conn.ExecContext(ctx, fmt.Sprintf("PRAGMA busy_timeout(%d)", wait.Milliseconds()))
	if err == nil {
		err = w.conn.QueryRowContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &length, &done)
		_, restored := w.conn.ExecContext(ctx, "PRAGMA busy_timeout(10000)")
		err = errors.Join(err, restored)
	}
	return err == nil && busy == 0, err
}
