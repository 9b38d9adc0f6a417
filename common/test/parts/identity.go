package parts

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// identity is who a server runs as. Postgres refuses to run as root.
type identity struct {
	credential *syscall.Credential
	// masked runs it in a user namespace in which root has another number, for a folder that no other user can enter.
	masked bool
}

// maskedID is root's number in such a namespace.
const maskedID = 1000

// unprivileged finds who a server runs as that works in dir, and gives dir to it.
func unprivileged(dir string) (identity, error) {
	if os.Getuid() != 0 {
		return identity{}, nil
	}
	if !enterable(dir) {
		return identity{masked: true}, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, uidErr := strconv.ParseUint(u.Uid, 10, 32)
		gid, gidErr := strconv.ParseUint(u.Gid, 10, 32)
		if err := errors.Join(uidErr, gidErr); err != nil {
			return identity{}, fmt.Errorf("the user %s: %w", name, err)
		}
		if err := os.Chown(dir, int(uid), int(gid)); err != nil {
			return identity{}, fmt.Errorf("giving a folder to the user %s: %w", name, err)
		}
		return identity{credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}, nil
	}
	return identity{masked: true}, nil
}

// enterable tells whether any user may enter all folders above one.
func enterable(dir string) bool {
	for above := filepath.Dir(dir); ; above = filepath.Dir(above) {
		info, err := os.Stat(above)
		if err != nil || info.Mode()&0o001 == 0 {
			return false
		}
		if above == filepath.Dir(above) {
			return true
		}
	}
}
