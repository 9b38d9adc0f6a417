package blackbox

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"gopkg.in/yaml.v2"

	"github.com/matrix-org/dendrite/common/config"
	"github.com/matrix-org/dendrite/common/test"
	"github.com/matrix-org/dendrite/common/test/parts"
)

// kind is a way to deploy the server.
type kind string

const (
	monolithSQLite   kind = "monolith-sqlite"
	monolithPostgres kind = "monolith-postgres"
	polylith         kind = "polylith"
)

var kinds = []kind{monolithSQLite, monolithPostgres, polylith}

// deployment is a server that runs.
type deployment struct {
	kind    kind
	config  *config.Config
	dir     string
	file    string   // its configuration
	urls    []string // of its public listeners
	servers []*parts.Server
	next    atomic.Int64 // which listener is called next
	remove  func() error // its database
}

// url is the base of one of the public listeners, another at each call.
func (d *deployment) url() string { return d.urls[int(d.next.Add(1))%len(d.urls)] }

// process finds one by name: monolith, or a component.
func (d *deployment) process(t *testing.T, name string) *parts.Server {
	t.Helper()
	i := slices.IndexFunc(d.servers, func(s *parts.Server) bool { return s.Name == name })
	if i < 0 {
		t.Fatalf("%s has no process %s", d.kind, name)
	}
	return d.servers[i]
}

// run runs a test's body against each kind of deployment. Tests share these deployments: a test makes users and rooms of its own.
func run(t *testing.T, body func(t *testing.T, d *deployment)) {
	t.Helper()
	for _, k := range kinds {
		t.Run(string(k), func(t *testing.T) {
			if chosen := os.Getenv("DENDRITE_BLACKBOX"); chosen != "" && !strings.Contains(chosen, string(k)) || testing.Short() && k != monolithSQLite {
				t.Skip("not chosen")
			}
			d, err := shared[k]()
			test.Needs(t, err)
			body(t, d)
		})
	}
}

// shared are the deployments that tests share, by kind.
var shared = func() map[kind]func() (*deployment, error) {
	all := make(map[kind]func() (*deployment, error))
	for _, k := range kinds {
		all[k] = sync.OnceValues(func() (*deployment, error) {
			d, err := start(k, nil)
			if err == nil {
				running = append(running, d)
			}
			return d, err
		})
	}
	return all
}()

var running []*deployment

func TestMain(m *testing.M) {
	code := m.Run()
	for _, d := range running {
		// Whatever the tests did to it, a process ends in order when it is asked to.
		if err := d.stop(code != 0); err != nil {
			fmt.Fprintln(os.Stderr, "FAIL: ending", d.kind, err)
			code = max(code, 1)
		}
	}
	if path, err := binary(); err == nil {
		if err := os.RemoveAll(filepath.Dir(path)); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	os.Exit(code)
}

// own starts a deployment for one test, which may kill parts of it. edit changes its configuration.
func own(t *testing.T, k kind, edit func(*config.Config)) *deployment {
	t.Helper()
	d, err := start(k, edit)
	test.Needs(t, err)
	t.Cleanup(func() {
		if err := d.stop(t.Failed()); err != nil {
			t.Error(err)
		}
	})
	return d
}

// binary is the path of the server, built once.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "dendrite-blackbox-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "dendrite")
	if out, err := exec.Command("go", "build", "-o", path, "../../cmd/dendrite").CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the server: %w: %s", err, out)
	}
	return path, nil
})

// start starts a deployment.
func start(k kind, edit func(*config.Config)) (*deployment, error) {
	path, err := binary()
	if err != nil {
		return nil, err
	}
	d := &deployment{kind: k, remove: func() error { return nil }}
	if d.dir, err = os.MkdirTemp("", "dendrite-"+string(k)+"-"); err != nil {
		return nil, err
	}
	if err := d.configure(path, edit); err != nil {
		return nil, err
	}
	processes := config.Components()
	if k != polylith {
		processes = []string{"monolith"}
	}
	var all errgroup.Group
	for _, name := range processes {
		addresses := d.config.Listen.For(name)
		if addresses.Public != "" {
			d.urls = append(d.urls, "http://"+addresses.Public)
		}
		s := &parts.Server{Name: name, Command: []string{path, name, "--config", d.file}, Dir: d.dir, Signal: "TERM",
			Log: filepath.Join(d.dir, name+".log"), Probe: parts.Healthy("http://" + addresses.Internal)}
		d.servers = append(d.servers, s)
		all.Go(func() error { return s.Start(context.Background()) })
	}
	if err := all.Wait(); err != nil {
		return nil, errors.Join(err, d.stop(true))
	}
	return d, nil
}

// configure writes the configuration as an operator would, and what tests need besides.
func (d *deployment) configure(path string, edit func(*config.Config)) (err error) {
	args := []string{"generate-config", "--server-name", "test.example", "--dir", d.dir}
	if d.kind != monolithSQLite {
		var url string
		if url, d.remove, err = test.NewDatabase(); err != nil {
			return err
		}
		args = append(args, "--database", url)
	}
	if d.kind == polylith {
		broker, err := test.Broker()
		if err != nil {
			return err
		}
		args = append(args, "--kafka", broker)
	}
	if out, err := exec.Command(path, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("generate-config: %w: %s", err, out)
	}
	d.file = filepath.Join(d.dir, "dendrite-config.yaml")
	if d.config, err = config.Load(d.file); err != nil {
		return err
	}
	c := d.config
	c.Matrix.RateLimits.Disabled = true
	c.Matrix.PasswordHashCost = 4
	c.Matrix.Registration.Enabled, c.Matrix.Registration.Verification = true, config.VerificationNone
	c.Kafka.TopicPrefix = "t" + rand.Text()[:8] + "_"
	l := &c.Listen
	for _, address := range []*string{&l.Monolith.Public, &l.Monolith.Internal, &l.ClientAPI.Public, &l.ClientAPI.Internal,
		&l.FederationAPI.Public, &l.FederationAPI.Internal, &l.SyncAPI.Public, &l.SyncAPI.Internal, &l.MediaAPI.Public,
		&l.MediaAPI.Internal, &l.AppService.Public, &l.AppService.Internal, &l.Roomserver.Internal, &l.Typingserver.Internal} {
		port, err := parts.FreePort()
		if err != nil {
			return err
		}
		*address = net.JoinHostPort("127.0.0.1", port)
	}
	for _, name := range config.Components() {
		c.Peers[name] = []string{"http://" + l.For(name).Internal}
	}
	if edit != nil {
		edit(c)
	}
	text, err := yaml.Marshal(c)
	if err != nil {
		return err
	}
	return os.WriteFile(d.file, text, 0o600)
}

// stop ends all processes at once, and tells which did not end well inside ten seconds and in order. Logs are kept if that is wanted.
func (d *deployment) stop(keep bool) error {
	var all errgroup.Group
	for _, s := range d.servers {
		if s.Ended() == nil {
			continue
		}
		all.Go(func() error {
			began := time.Now()
			if err := s.Stop(); err != nil {
				return err
			}
			if took := time.Since(began); took > 9*time.Second {
				return fmt.Errorf("%s took %v to end", s.Name, took)
			}
			if status := s.Status(); status != 0 {
				log, err := os.ReadFile(s.Log)
				return errors.Join(fmt.Errorf("%s ended with status %d: %s", s.Name, status, log[max(0, len(log)-2000):]), err)
			}
			return nil
		})
	}
	err := all.Wait()
	if keep || err != nil {
		fmt.Fprintln(os.Stderr, "the logs of", d.kind, "are in", d.dir)
	} else {
		err = os.RemoveAll(d.dir)
	}
	return errors.Join(err, d.remove())
}
