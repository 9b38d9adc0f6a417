package clients

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/matrix-org/dendrite/common/test"
	"github.com/matrix-org/dendrite/test/programs"
)

func TestMatrixJSSDK(t *testing.T) {
	tell(t, func(t *testing.T, c cast) story {
		node, err := programs.Find("node", "nodejs")
		test.Needs(t, err)
		dir, err := npm()
		test.Needs(t, err)
		return play(t, c, node, filepath.Join(dir, "story.mjs"))
	})
}

func TestMatrixNio(t *testing.T) {
	tell(t, func(t *testing.T, c cast) story {
		interpreter, err := python()
		test.Needs(t, err)
		return play(t, c, interpreter, filepath.Join("python", "story.py"))
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

// npm is the folder in which matrix-js-sdk is installed, with the programs beside it.
func npm() (string, error) { return programs.NPM("clients", "npm", "story.mjs", "actor.mjs") }

// python is the interpreter that has matrix-nio.
func python() (string, error) {
	return programs.Venv("clients-venv", filepath.Join("python", "requirements.txt"))
}
