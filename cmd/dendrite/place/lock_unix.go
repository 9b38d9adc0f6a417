//go:build unix

package place

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
)

// Lock keeps a second server away from the same SQLite database: each would believe that it alone writes. The lock ends with the
// process, however that ends. Tools do not take it.
func Lock(path string) (io.Closer, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = errors.New("another server runs on this database: stop it, or give this one another --data-dir or database.connection_string")
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("locking %s: %w", path, err), f.Close())
	}
	return f, nil
}
