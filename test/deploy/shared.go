package deploy

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/matrix-org/dendrite/common/test"
)

// Shared are the deployments that the tests of a package share, one of each kind, started when the first test wants it. Tests that
// share one make users and rooms of their own. The polylith's listeners take turns.
type Shared struct {
	// Options are those of each of them. A monolith has no replicas.
	Options Options

	mutex   sync.Mutex
	started map[Kind]result
}

type result struct {
	deployment *Deployment
	err        error
}

// Main is what TestMain does: it runs the tests and exits, after ending what they shared. It is a failure if a process does not end in
// order, whatever the tests did to it.
func Main(m *testing.M, all ...*Shared) {
	code := m.Run()
	for _, s := range all {
		for kind, r := range s.started {
			if r.err != nil {
				continue
			}
			if err := r.deployment.Stop(code != 0); err != nil {
				fmt.Fprintln(os.Stderr, "FAIL: ending", kind, err)
				code = max(code, 1)
			}
		}
	}
	if path, err := binary(); err == nil && os.Getenv(EnvBinary) == "" {
		if err := os.RemoveAll(filepath.Dir(path)); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	os.Exit(code)
}

// Run runs a test's body against each kind of deployment that is chosen.
func (s *Shared) Run(t *testing.T, body func(t *testing.T, d *Deployment)) {
	t.Helper()
	for _, k := range Kinds() {
		t.Run(string(k), func(t *testing.T) {
			Chosen(t, k)
			d, err := s.get(k)
			test.Needs(t, err)
			body(t, d)
		})
	}
}

// Chosen skips a test for a kind that is not to run: the environment variable DENDRITE_BLACKBOX names those that are, and -short leaves
// only the monolith on SQLite.
func Chosen(t *testing.T, kind Kind) {
	t.Helper()
	if chosen := os.Getenv("DENDRITE_BLACKBOX"); chosen != "" && !strings.Contains(chosen, string(kind)) || testing.Short() && kind != MonolithSQLite {
		t.Skip("not chosen")
	}
}

func (s *Shared) get(kind Kind) (*Deployment, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	r, is := s.started[kind]
	if !is {
		o := s.Options
		if kind != Polylith {
			o.Replicas = nil
		}
		r.deployment, r.err = Start(kind, o)
		if s.started == nil {
			s.started = make(map[Kind]result)
		}
		s.started[kind] = r
	}
	return r.deployment, r.err
}

// Own starts a deployment for one test, which may kill parts of it, if its kind is chosen.
func Own(t *testing.T, kind Kind, o Options) *Deployment {
	t.Helper()
	Chosen(t, kind)
	d, err := Start(kind, o)
	test.Needs(t, err)
	t.Cleanup(func() {
		if err := d.Stop(t.Failed()); err != nil {
			t.Errorf("ending %s: %v", kind, err)
		}
	})
	return d
}
