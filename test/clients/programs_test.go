package clients

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/matrix-org/dendrite/common/test"
	"github.com/matrix-org/dendrite/common/test/parts"
)

func TestMatrixJSSDK(t *testing.T) {
	tell(t, func(t *testing.T, c cast) story {
		node, err := program("node", "nodejs")
		test.Needs(t, err)
		dir, err := npm()
		test.Needs(t, err)
		return play(t, c, node, filepath.Join(dir, "story.mjs"))
	})
}

func TestMatrixNio(t *testing.T) {
	tell(t, func(t *testing.T, c cast) story {
		dir, err := venv()
		test.Needs(t, err)
		return play(t, c, filepath.Join(dir, "bin", "python"), filepath.Join("python", "story.py"))
	})
}

// play runs a program that reads who plays from its standard input and writes the story to the file that it is given.
func play(t *testing.T, c cast, command ...string) story {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	said := filepath.Join(t.TempDir(), "story.json")
	settings, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, command[0], append(command[1:], said)...)
	cmd.Stdin = bytes.NewReader(settings)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v (%v): %s", err, ctx.Err(), out[max(0, len(out)-8000):])
	}
	text, err := os.ReadFile(said)
	if err != nil {
		t.Fatal(err)
	}
	var s story
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return s
}

// npm is the folder in which matrix-js-sdk is installed, with the program beside it: a module is looked for above what imports it.
func npm() (string, error) {
	manager, err := program("npm", "npm")
	if err != nil {
		return "", err
	}
	dir, err := installed("npm", filepath.Join("npm", "package-lock.json"), func(dir string) error {
		for _, name := range []string{"package.json", "package-lock.json"} {
			if err := copyFile(filepath.Join("npm", name), filepath.Join(dir, name)); err != nil {
				return err
			}
		}
		return install(dir, manager, "install", "--no-save", "--prefer-offline", "--no-audit", "--no-fund", "--ignore-scripts")
	})
	if err != nil {
		return "", err
	}
	for _, name := range []string{"story.mjs", "actor.mjs"} {
		if err := copyFile(filepath.Join("npm", name), filepath.Join(dir, name)); err != nil {
			return "", err
		}
	}
	return dir, nil
}

// venv is a virtual environment of Python with matrix-nio in it.
func venv() (string, error) {
	python, err := program("python3", "python3-venv")
	if err != nil {
		return "", err
	}
	const requirements = "requirements.txt"
	return installed("venv", filepath.Join("python", requirements), func(dir string) error {
		if err := install(".", python, "-m", "venv", dir); err != nil {
			return fmt.Errorf("%w (apt-get install python3-venv)", err)
		}
		return install("python", filepath.Join(dir, "bin", "python"), "-m", "pip", "install", "--quiet", "--requirement", requirements)
	})
}

// installed is a folder of the repository's cache in which what a lock file names is installed. It is made anew when the file changes.
func installed(name, lock string, fill func(dir string) error) (string, error) {
	cache, err := parts.Cache()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "clients", name)
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
	ctx, cancel := context.WithTimeout(context.Background(), 2*within)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s: %w: %s", test.ErrMissing, filepath.Base(name), err, out[max(0, len(out)-2000):])
	}
	return nil
}

func program(name, apt string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("%w: there is no %s: apt-get install %s", test.ErrMissing, name, apt)
	}
	return path, nil
}

func copyFile(from, to string) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, text, 0o644)
}
