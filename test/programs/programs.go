// Package programs installs programs of others that tests run: clients and bridges of npm and PyPI.
//
// The first run installs them into .cache/programs, in the versions that a lock file says, and needs a network. Where
// there is none, or no Node or Python, errors are of test.ErrMissing: a test is then skipped with the reason, or
// fails where DENDRITE_TEST_REQUIRE is set.
package programs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/matrix-org/dendrite/common/test"
	"github.com/matrix-org/dendrite/common/test/parts"
)

// within is how long a package manager may take.
const within = 3 * time.Minute

// Find finds a program of the system; apt is the package of Debian that has it.
func Find(name, apt string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("%w: there is no %s: apt-get install %s", test.ErrMissing, name, apt)
	}
	return path, nil
}

// NPM is a folder in which the packages of from/package-lock.json are installed, with these scripts of from beside
// them: a module is looked for above what imports it. name is the folder's in the cache.
func NPM(name, from string, scripts ...string) (string, error) {
	manager, err := Find("npm", "npm")
	if err != nil {
		return "", err
	}
	dir, err := installed(name, filepath.Join(from, "package-lock.json"), func(dir string) error {
		for _, name := range []string{"package.json", "package-lock.json"} {
			if err := copyFile(filepath.Join(from, name), filepath.Join(dir, name)); err != nil {
				return err
			}
		}
		return install(dir, manager,
			"install", "--no-save", "--prefer-offline", "--no-audit", "--no-fund", "--ignore-scripts")
	})
	if err != nil {
		return "", err
	}
	for _, name := range scripts {
		if err := copyFile(filepath.Join(from, name), filepath.Join(dir, name)); err != nil {
			return "", err
		}
	}
	return dir, nil
}

// Venv is the interpreter of a virtual environment of Python with what the file requirements says. name is its
// folder's in the cache.
func Venv(name, requirements string) (string, error) {
	python, err := Find("python3", "python3-venv")
	if err != nil {
		return "", err
	}
	dir, err := installed(name, requirements, func(dir string) error {
		if err := install(".", python, "-m", "venv", dir); err != nil {
			return fmt.Errorf("%w (apt-get install python3-venv)", err)
		}
		return install(".", interpreter(dir), "-m", "pip", "install", "--quiet", "--requirement", requirements)
	})
	return interpreter(dir), err
}

func interpreter(dir string) string { return filepath.Join(dir, "bin", "python") }

// installing is held by what looks at a folder, or fills it.
var installing sync.Mutex

// installed is a folder of the repository's cache in which what a lock file names is installed. It is made anew when
// the file changes.
func installed(name, lock string, fill func(dir string) error) (string, error) {
	installing.Lock()
	defer installing.Unlock()
	cache, err := parts.Cache()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "programs", name)
	stamp := filepath.Join(dir, "installed")
	wanted, err := os.ReadFile(lock)
	if err != nil {
		return "", err
	}
	has, err := os.ReadFile(stamp)
	if err == nil && bytes.Equal(has, wanted) {
		return dir, nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755)); err != nil {
		return "", err
	}
	if err := fill(dir); err != nil {
		return "", err
	}
	return dir, os.WriteFile(stamp, wanted, 0o644)
}

// install runs a package manager, which needs a network.
func install(dir, name string, args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s: %w: %s", test.ErrMissing, filepath.Base(name), err, out[max(0, len(out)-2000):])
	}
	return nil
}

// copyFile leaves the old file, or the new one, to who reads it at the same time.
func copyFile(from, to string) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	fresh, err := os.CreateTemp(filepath.Dir(to), "fresh-")
	if err != nil {
		return err
	}
	_, err = fresh.Write(text)
	if err := errors.Join(err, fresh.Close()); err != nil {
		return err
	}
	return os.Rename(fresh.Name(), to)
}
