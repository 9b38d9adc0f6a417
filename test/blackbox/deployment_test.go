package blackbox

import (
	"testing"

	"github.com/matrix-org/dendrite/common/config"
	"github.com/matrix-org/dendrite/common/test/parts"
	"github.com/matrix-org/dendrite/test/deploy"
)

const (
	monolithSQLite = deploy.MonolithSQLite
	polylith       = deploy.Polylith
)

// deployment is a server that runs.
type deployment struct {
	*deploy.Deployment
	kind   deploy.Kind
	config *config.Config
	file   string   // its configuration
	urls   []string // of its public listeners
}

func deployed(d *deploy.Deployment) *deployment {
	return &deployment{Deployment: d, kind: d.Kind, config: d.Config, file: d.File, urls: d.URLs}
}

// url is the base of one of the public listeners, another at each call.
func (d *deployment) url() string { return d.URL() }

// process finds one by name: monolith, or a component.
func (d *deployment) process(t *testing.T, name string) *parts.Server {
	t.Helper()
	server, err := d.Process(name)
	if err != nil {
		t.Fatal(err)
	}
	return server
}

var (
	// shared are the deployments that tests share, by kind. The polylith has two processes of every component.
	shared = &deploy.Shared{Options: deploy.Options{Replicas: config.Components()}}
	// switched are others, where what a configuration switches on is on, and what it switches off is off.
	switched = &deploy.Shared{Options: deploy.Options{Edit: func(c *config.Config) {
		c.Matrix.Registration.Guests = true
		c.Matrix.UserDirectory.SearchAllUsers = true
		c.Matrix.ServerNotices.Localpart = ""
	}}}
)

func TestMain(m *testing.M) { deploy.Main(m, shared, switched) }

// run runs a test's body against each kind of deployment. Tests share these deployments: a test makes users and rooms of its own.
func run(t *testing.T, body func(t *testing.T, d *deployment)) { t.Helper(); runOn(t, shared, body) }

func runOn(t *testing.T, all *deploy.Shared, body func(t *testing.T, d *deployment)) {
	t.Helper()
	all.Run(t, func(t *testing.T, d *deploy.Deployment) {
		t.Helper()
		body(t, deployed(d))
	})
}

// own starts a deployment for one test, which may kill parts of it. edit changes its configuration.
func own(t *testing.T, k deploy.Kind, edit func(*config.Config)) *deployment {
	t.Helper()
	return deployed(deploy.Own(t, k, deploy.Options{Edit: edit}))
}

// binary is the path of the server, built once.
func binary() (string, error) { return deploy.Binary() }
