package kafka

import (
	"context"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/sirupsen/logrus"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/matrix-org/dendrite/common/config"
	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/eventlog/eventlogtest"
	"github.com/matrix-org/dendrite/common/test"
	"github.com/matrix-org/dendrite/common/test/parts"
)

// fake is a broker in the test's process, which can be restarted at the same address.
type fake struct {
	cluster *kfake.Cluster
	newDir  func() string // that is there for the whole test
	dir     string
	port    int
}

func newFake(t *testing.T) *fake {
	f := &fake{newDir: t.TempDir, dir: t.TempDir()}
	f.start(t)
	t.Cleanup(func() { f.cluster.Close() })
	return f
}

func (f *fake) start(t *testing.T) {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(f.port), kfake.DataDir(f.dir),
		kfake.BrokerConfigs(map[string]string{"group.initial.rebalance.delay.ms": "0"}))
	if err != nil {
		t.Fatal(err)
	}
	f.cluster = cluster
	address := cluster.ListenAddrs()[0]
	if f.port, err = strconv.Atoi(address[strings.LastIndexByte(address, ':')+1:]); err != nil {
		t.Fatal(err)
	}
}

func (f *fake) restart(t *testing.T) {
	f.cluster.Close()
	f.start(t)
}

func (f *fake) wipe(t *testing.T) {
	f.cluster.Close()
	f.dir = f.newDir()
	f.start(t)
}

func (f *fake) address() string { return f.cluster.ListenAddrs()[0] }

// transport makes one for a test's own topics.
func transport(t *testing.T, address, prefix string) *Transport {
	t.Helper()
	log := logrus.New()
	log.SetOutput(t.Output())
	if os.Getenv("DENDRITE_TEST_DEBUG") != "" {
		log.SetLevel(logrus.DebugLevel)
	}
	k, err := New(Options{Config: config.Kafka{Addresses: strings.Split(address, ","), TopicPrefix: prefix, ReplicationFactor: 1}, Log: logrus.NewEntry(log)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	})
	return k
}

// prefixes gives each test topics of its own.
func prefixes() func(t *testing.T) string {
	return eventlogtest.Each(func(*testing.T) string { return "t" + rand.Text()[:12] + "_" })
}

var relayFailpoints = []string{"relay.read", "relay.produced"}

func TestConformance(t *testing.T) {
	f := newFake(t)
	prefix := prefixes()
	eventlogtest.Run(t, eventlogtest.Harness{
		New:     func(t *testing.T) eventlog.Transport { return transport(t, f.address(), prefix(t)) },
		Restart: f.restart, Wipe: f.wipe, Failpoints: relayFailpoints,
	})
}

// TestConformanceOfBroker runs the same against a real broker.
func TestConformanceOfBroker(t *testing.T) {
	address := os.Getenv("DENDRITE_TEST_KAFKA")
	if address == "" {
		if os.Getenv("DENDRITE_TEST_REQUIRE") == "1" {
			t.Fatal("DENDRITE_TEST_KAFKA is not set")
		}
		t.Skip("DENDRITE_TEST_KAFKA is not set")
	}
	prefix := prefixes()
	eventlogtest.Run(t, eventlogtest.Harness{
		New:        func(t *testing.T) eventlog.Transport { return transport(t, address, prefix(t)) },
		Failpoints: relayFailpoints,
	})
}

// TestOutagesOfBroker kills and wipes a real broker of the test's own.
func TestOutagesOfBroker(t *testing.T) {
	dir := t.TempDir()
	broker, err := parts.NewKafka(t.Context(), dir, "")
	if err != nil {
		if os.Getenv(test.EnvRequire) != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	_, port, _ := strings.Cut(broker.Address, ":")
	t.Cleanup(func() {
		if err := broker.Stop(); err != nil {
			t.Error(err)
		}
	})
	start := func(t *testing.T, err error) {
		t.Helper()
		if err == nil {
			err = broker.Start(context.Background())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	start(t, nil)
	prefix := prefixes()
	eventlogtest.RunOutages(t, eventlogtest.Harness{
		New:     func(t *testing.T) eventlog.Transport { return transport(t, broker.Address, prefix(t)) },
		Restart: func(t *testing.T) { start(t, broker.Kill()) },
		Wipe: func(t *testing.T) {
			err := errors.Join(broker.Kill(), os.RemoveAll(filepath.Join(dir, "data")))
			if err == nil {
				broker, err = parts.NewKafka(t.Context(), dir, port)
			}
			start(t, err)
		},
	})
}

func TestReadyTellsWhetherTheBrokerIsThere(t *testing.T) {
	f := newFake(t)
	k := transport(t, f.address(), "ready_")
	if err := k.Ready(t.Context()); err != nil {
		t.Error(err)
	}
	f.cluster.Close()
	if err := k.Ready(t.Context()); err == nil {
		t.Error("ready without a broker")
	}
	f.start(t)
	for k.Ready(t.Context()) != nil {
		if t.Context().Err() != nil {
			t.Fatal("not ready again")
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := k.Ready(ctx); err == nil {
		t.Error("ready although nobody waits")
	}
}
