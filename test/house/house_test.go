// Package house checks the rules that the design lays down for the code itself (docs/architecture.md, § Rules of the house).
package house

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/matrix-org/dendrite/"

var components = []string{"clientapi", "federationapi", "roomserver", "syncapi", "appservice", "typingserver", "mediaapi"}

type source struct {
	path string // from the top of the repository
	file *ast.File
	set  *token.FileSet
}

func (s source) component() string {
	first, _, _ := strings.Cut(s.path, "/")
	for _, c := range components {
		if c == first {
			return c
		}
	}
	return ""
}

// product parses every Go file that is no test.
func product(t *testing.T) []source {
	t.Helper()
	top := filepath.Join("..", "..")
	var sources []source
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(top, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			if strings.HasPrefix(d.Name(), ".") && rel != "." || rel == "test" || rel == "bench" || rel == "polylith-data" || rel == "dendrite-data" {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		sources = append(sources, source{filepath.ToSlash(rel), file, set})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(sources) < 50 {
		t.Fatalf("found only %d files: is this the top of the repository?", len(sources))
	}
	return sources
}

func TestComponentsImportOnlyEachOthersAPI(t *testing.T) {
	for _, s := range product(t) {
		for _, imported := range s.file.Imports {
			path, err := strconv.Unquote(imported.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			path, ours := strings.CutPrefix(path, module)
			if !ours {
				continue
			}
			owner, inside, _ := strings.Cut(path, "/")
			isComponent := false
			for _, c := range components {
				isComponent = isComponent || c == owner
			}
			from := s.component()
			switch {
			case !isComponent || owner == from || inside == "api":
			case strings.HasPrefix(s.path, "cmd/") && inside == "":
				// The launcher constructs the components.
			default:
				t.Errorf("%s imports %s: components meet through api packages only", s.path, path)
			}
			if strings.HasPrefix(s.path, "common/") && isComponent {
				t.Errorf("%s imports %s: common knows no component", s.path, path)
			}
		}
	}
}

var sqlText = regexp.MustCompile(`(?is)^\s*(SELECT\s.*\sFROM\s|INSERT\s+INTO\s|UPDATE\s+[a-z_]+\s+SET\s|DELETE\s+FROM\s)`)

func TestSQLIsWrittenOnceAndInStorageOnly(t *testing.T) {
	seen := make(map[string]string)
	statements := 0
	for _, s := range product(t) {
		ast.Inspect(s.file, func(n ast.Node) bool {
			literal, is := n.(*ast.BasicLit)
			if !is || literal.Kind != token.STRING {
				return true
			}
			text, err := strconv.Unquote(literal.Value)
			if err != nil || !sqlText.MatchString(text) {
				return true
			}
			statements++
			at := s.set.Position(literal.Pos()).String()
			if s.component() != "" && !strings.Contains(s.path, "/storage/") ||
				s.component() == "" && !strings.HasPrefix(s.path, "common/sqlutil/") && !strings.HasPrefix(s.path, "common/eventlog/") && !strings.HasPrefix(s.path, "common/test/") {
				t.Errorf("%s: SQL outside storage", at)
			}
			text = strings.Join(strings.Fields(text), " ")
			if first, twice := seen[text]; twice {
				t.Errorf("%s: the same SQL as at %s", at, first)
			}
			seen[text] = at
			return true
		})
	}
	if statements < 50 {
		t.Errorf("found only %d statements: the pattern no longer finds SQL", statements)
	}
}

func TestNoInitAndNoBuildTimeSwitches(t *testing.T) {
	for _, s := range product(t) {
		for _, d := range s.file.Decls {
			if f, is := d.(*ast.FuncDecl); is && f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%s has an init function: construct things where they are wired", s.path)
			}
		}
	}
}

func TestFilesAndPackagesStaySmall(t *testing.T) {
	files := make(map[string]int)
	for _, s := range product(t) {
		if lines := s.set.File(s.file.Pos()).LineCount(); lines > 600 {
			t.Errorf("%s has %d lines: split it by noun", s.path, lines)
		}
		files[filepath.Dir(s.path)]++
	}
	for dir, n := range files {
		if n > 25 && !strings.HasSuffix(dir, "/routing") && !strings.HasSuffix(dir, "/storage") {
			t.Errorf("%s has %d files: split it by noun", dir, n)
		}
	}
}

func TestEveryPackageSaysWhatItIsFor(t *testing.T) {
	documented := make(map[string]bool)
	for _, s := range product(t) {
		dir := filepath.Dir(s.path)
		documented[dir] = documented[dir] || s.file.Doc != nil
	}
	for dir, has := range documented {
		if !has {
			t.Errorf("%s has no package documentation", dir)
		}
	}
}

func TestNoMergeIsHalfDone(t *testing.T) {
	top := filepath.Join("..", "..")
	texts := 0
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		switch name := d.Name(); {
		case d.IsDir() && (strings.HasPrefix(name, ".") && path != top || name == "node_modules" || strings.HasSuffix(name, "-data")):
			return filepath.SkipDir
		case !slices.Contains([]string{".go", ".md", ".sql", ".yaml", ".yml", ".mjs", ".py"}, filepath.Ext(name)):
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		texts++
		if at := mergeMark.FindIndex(text); at != nil {
			t.Errorf("%s:%d has a mark of a merge", path, bytes.Count(text[:at[0]], []byte("\n"))+1)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if texts < 200 {
		t.Errorf("found only %d texts: is this the top of the repository?", texts)
	}
}

var mergeMark = regexp.MustCompile(`(?m)^(<{7}|>{7}) `)

func TestLicenceIsApache(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "LICENSE"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), "Apache License") {
		t.Error("LICENSE is not the Apache licence")
	}
}
