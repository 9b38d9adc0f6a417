// Package deploy runs the server the ways in which it is deployed, for tests that drive it by its public API: all components in one
// process on SQLite, the same on Postgres, and every component as a process of its own on Postgres and Kafka.
//
// The server is the program that cmd/dendrite makes, with a configuration that its generate-config wrote; a deployment has a database,
// a folder and ports of its own, and ends with the process that started it.
package deploy

import (
	"context"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"gopkg.in/yaml.v2"

	"github.com/matrix-org/dendrite/common/config"
	"github.com/matrix-org/dendrite/common/test"
	"github.com/matrix-org/dendrite/common/test/parts"
)

// Kind is a way to deploy the server.
type Kind string

// The kinds.
const (
	MonolithSQLite   Kind = "monolith-sqlite"
	MonolithPostgres Kind = "monolith-postgres"
	Polylith         Kind = "polylith"
)

// Kinds returns all of them, the quickest to start first.
func Kinds() []Kind { return []Kind{MonolithSQLite, MonolithPostgres, Polylith} }

// Options are what a test wants otherwise than usual.
type Options struct {
	// Edit changes the configuration before anything starts.
	Edit func(*config.Config)
	// Broker is the host:port of a Kafka for this polylith alone. Without it, it is the one that all tests use.
	Broker string
	// Replicas are components of which the polylith has two processes.
	Replicas []string
	// Registrations are the texts of those of application services that the server has from its start, by name.
	Registrations map[string]string
}

// Deployment is a server that runs.
type Deployment struct {
	Kind   Kind
	Config *config.Config
	// File is its configuration.
	File string
	// URLs are the bases of its public listeners.
	URLs []string

	dir     string
	servers []*parts.Server
	next    atomic.Int64 // which listener is called next
	remove  func() error // its database
	seconds map[string]config.Addresses

	registrations sync.Mutex // one change at a time
}

// URL is the base of one of the public listeners, another at each call.
func (d *Deployment) URL() string { return d.URLs[int(d.next.Add(1))%len(d.URLs)] }

// Process finds one by name: monolith, or a component.
func (d *Deployment) Process(name string) (*parts.Server, error) {
	i := slices.IndexFunc(d.servers, func(s *parts.Server) bool { return s.Name == name })
	if i < 0 {
		return nil, fmt.Errorf("%s has no process %s", d.Kind, name)
	}
	return d.servers[i], nil
}

// Processes are all of them.
func (d *Deployment) Processes() []*parts.Server { return d.servers }

// EnvBinary names a server that is built already, such as one of an earlier commit, to see that a test fails on it.
const EnvBinary = "DENDRITE_TEST_BINARY"

// Binary is the path of the server, built once.
func Binary() (string, error) { return binary() }

var binary = sync.OnceValues(func() (string, error) {
	if path := os.Getenv(EnvBinary); path != "" {
		return path, nil
	}
	dir, err := os.MkdirTemp("", "dendrite-binary-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "dendrite")
	if out, err := exec.Command("go", "build", "-o", path, "github.com/matrix-org/dendrite/cmd/dendrite").CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the server: %w: %s", err, out)
	}
	return path, nil
})

// Start starts a deployment. The error has test.ErrMissing in its chain if this machine cannot run one of that kind.
func Start(kind Kind, o Options) (*Deployment, error) {
	path, err := binary()
	if err != nil {
		return nil, err
	}
	d := &Deployment{Kind: kind, remove: func() error { return nil }}
	if d.dir, err = os.MkdirTemp("", "dendrite-"+string(kind)+"-"); err != nil {
		return nil, err
	}
	if err := d.configure(path, o); err != nil {
		return nil, errors.Join(err, d.Stop(false))
	}
	processes := config.Components()
	if kind != Polylith {
		processes = []string{"monolith"}
	}
	var all errgroup.Group
	run := func(name string, addresses config.Addresses, command ...string) {
		if addresses.Public != "" {
			d.URLs = append(d.URLs, "http://"+addresses.Public)
		}
		s := &parts.Server{Name: name, Command: append([]string{path}, command...), Dir: d.dir, Signal: "TERM",
			Log: filepath.Join(d.dir, name+".log"), Probe: parts.Healthy("http://" + addresses.Internal)}
		d.servers = append(d.servers, s)
		all.Go(func() error { return s.Start(context.Background()) })
	}
	for _, name := range processes {
		run(name, d.Config.Listen.For(name), name, "--config", d.File)
	}
	for name, second := range d.seconds {
		command := []string{name, "--config", d.File, "--internal-listen", second.Internal}
		if second.Public != "" {
			command = append(command, "--public-listen", second.Public)
		}
		run(name+"-2", second, command...)
	}
	if err := all.Wait(); err != nil {
		return nil, errors.Join(err, d.Stop(true))
	}
	return d, nil
}

// configure writes the configuration as an operator would, and what tests need besides.
func (d *Deployment) configure(path string, o Options) (err error) {
	args := []string{"generate-config", "--server-name", "test.example", "--dir", d.dir}
	if d.Kind != MonolithSQLite {
		url, remove, err := test.NewDatabase()
		if err != nil {
			return err
		}
		d.remove = remove
		args = append(args, "--database", url)
	}
	shared := o.Broker == ""
	if d.Kind == Polylith {
		if shared {
			if o.Broker, err = test.Broker(); err != nil {
				return err
			}
		}
		args = append(args, "--kafka", o.Broker)
	}
	if out, err := exec.Command(path, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("generate-config: %w: %s", err, out)
	}
	d.File = filepath.Join(d.dir, "dendrite-config.yaml")
	if d.Config, err = config.Load(d.File); err != nil {
		return err
	}
	c := d.Config
	c.Matrix.RateLimits.Disabled = true
	c.Matrix.PasswordHashCost = 4
	c.Matrix.Registration.Enabled, c.Matrix.Registration.Verification = true, config.VerificationNone
	// What a test listens on, with the certificate of net/http/httptest, may be reached.
	c.Network.AllowPrivate.Push = []string{"127.0.0.0/8"}
	if c.Network.CAFiles, err = d.testCA(); err != nil {
		return err
	}
	if err := d.writeRegistrations(o.Registrations); err != nil {
		return err
	}
	c.Kafka.TopicPrefix = "t" + rand.Text()[:8] + "_"
	if d.Kind == Polylith && shared {
		remove := d.remove
		d.remove = func() error { return errors.Join(parts.DropTopics(o.Broker, c.Kafka.TopicPrefix), remove()) }
	}
	l := &c.Listen
	for _, address := range []*string{&l.Monolith.Public, &l.Monolith.Internal, &l.ClientAPI.Public, &l.ClientAPI.Internal,
		&l.FederationAPI.Public, &l.FederationAPI.Internal, &l.SyncAPI.Public, &l.SyncAPI.Internal, &l.MediaAPI.Public,
		&l.MediaAPI.Internal, &l.AppService.Public, &l.AppService.Internal, &l.Roomserver.Internal, &l.Typingserver.Internal} {
		if *address, err = freeAddress(); err != nil {
			return err
		}
	}
	for _, name := range config.Components() {
		c.Peers[name] = []string{"http://" + l.For(name).Internal}
	}
	d.seconds = make(map[string]config.Addresses)
	for _, name := range o.Replicas {
		var second config.Addresses
		if second.Internal, err = freeAddress(); err != nil {
			return err
		}
		if l.For(name).Public != "" {
			if second.Public, err = freeAddress(); err != nil {
				return err
			}
		}
		d.seconds[name] = second
		c.Peers[name] = append(c.Peers[name], "http://"+second.Internal)
	}
	if o.Edit != nil {
		o.Edit(c)
	}
	text, err := yaml.Marshal(c)
	if err != nil {
		return fmt.Errorf("writing the configuration of %s: %w", d.Kind, err)
	}
	return os.WriteFile(d.File, text, 0o600)
}

// testCA writes the certificate that servers of net/http/httptest have.
func (d *Deployment) testCA() ([]string, error) {
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	file := filepath.Join(d.dir, "test-ca.pem")
	return []string{file}, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600)
}

func freeAddress() (string, error) {
	port, err := parts.FreePort()
	return net.JoinHostPort("127.0.0.1", port), err
}

// Stop ends all processes at once, and tells which did not end well inside ten seconds and in order. Logs are kept if that is wanted.
func (d *Deployment) Stop(keep bool) error {
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
		fmt.Fprintln(os.Stderr, "the logs of", d.Kind, "are in", d.dir)
	} else {
		err = os.RemoveAll(d.dir)
	}
	return errors.Join(err, d.remove())
}
