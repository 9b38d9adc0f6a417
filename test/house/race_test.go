package house

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// What runs without the race detector has nothing that it could find: it starts no goroutine and shares nothing, and neither does what
// it imports of this repository. A package that is not in the list runs with it.
func TestWhatRunsWithoutTheRaceDetectorIsSequential(t *testing.T) {
	makefile, err := os.ReadFile(filepath.Join("..", "..", "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	listed := 0
	for line := range strings.Lines(string(makefile)) {
		names, is := strings.CutPrefix(line, "SEQUENTIAL = ")
		if !is {
			continue
		}
		for _, name := range strings.Fields(names) {
			listed++
			if why := concurrent(t, name, true, map[string]bool{}); why != "" {
				t.Errorf("the Makefile runs the tests of %s without the race detector, but %s", name, why)
			}
		}
	}
	if listed == 0 {
		t.Error("the Makefile has no list of SEQUENTIAL packages")
	}
	for _, name := range []string{"common/lru", "common/eventlog", "roomserver/state"} {
		if concurrent(t, name, true, map[string]bool{}) == "" {
			t.Errorf("nothing concurrent was found in %s: what is looked for no longer finds it", name)
		}
	}
}

// concurrent tells what is concurrent in a package of this repository, with its tests if that is wanted, or in what it imports.
func concurrent(t *testing.T, name string, tests bool, seen map[string]bool) string {
	t.Helper()
	seen[name] = true
	files, err := filepath.Glob(filepath.Join("..", "..", filepath.FromSlash(name), "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("the package %s has no files: %v", name, err)
	}
	for _, path := range files {
		if strings.HasSuffix(path, "_test.go") && !tests {
			continue
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		why := ""
		ast.Inspect(file, func(n ast.Node) bool {
			switch n.(type) {
			case *ast.GoStmt, *ast.ChanType, *ast.SelectStmt:
				why = set.Position(n.Pos()).String() + " is concurrent"
			}
			return why == ""
		})
		for _, spec := range file.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			if slices.Contains([]string{"sync", "sync/atomic", "golang.org/x/sync/errgroup", "net/http/httptest"}, imported) {
				why = path + " imports " + imported
			}
			if ours, is := strings.CutPrefix(imported, module); is && why == "" && !seen[ours] {
				why = concurrent(t, ours, false, seen)
			}
		}
		if why != "" {
			return why
		}
	}
	return ""
}
