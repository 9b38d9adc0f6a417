// Package test gives tests the real servers that they run against: a database of their own in a Postgres cluster, and a Kafka broker.
//
// `make test` starts both once for all packages and names them in environment variables. Without these, the first test of a process
// that needs one starts it, if the machine has what it takes, and else skips; where DENDRITE_TEST_REQUIRE is set, as in CI, it fails.
package test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/matrix-org/dendrite/common/test/parts"
)

// Environment variables that name servers that run already.
const (
	EnvPostgres = "DENDRITE_TEST_POSTGRES" // connection string of an administrator
	EnvKafka    = "DENDRITE_TEST_KAFKA"    // host:port
	EnvRequire  = "DENDRITE_TEST_REQUIRE"  // not empty: a test that cannot have what it needs fails
)

// Postgres returns the connection string of an empty database, which is removed after the test.
func Postgres(t testing.TB) string {
	t.Helper()
	url, remove, err := NewDatabase()
	Needs(t, err)
	t.Cleanup(func() {
		if err := remove(); err != nil {
			t.Errorf("removing the test's database: %v", err)
		}
	})
	return url
}

// Kafka returns the address of a broker, which other tests use too: give topics a prefix of your own.
func Kafka(t testing.TB) string {
	t.Helper()
	address, err := Broker()
	Needs(t, err)
	return address
}

// NewDatabase makes an empty database for more than one test.
func NewDatabase() (url string, remove func() error, err error) {
	admin, err := ownPostgres()
	if err != nil {
		return "", nil, missing(err)
	}
	name := "test_" + strings.ToLower(rand.Text())
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	url, err = parts.CreateDatabase(ctx, admin, name)
	return url, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		return parts.DropDatabase(ctx, admin, name)
	}, err
}

// Broker is the address of Kafka, for more than one test.
func Broker() (string, error) {
	address, err := ownKafka()
	return address, missing(err)
}

func missing(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrMissing, err)
}

// ErrMissing is in the chain of errors that say that a server cannot be had on this machine.
var ErrMissing = errors.New("a part that the test needs is missing")

// Needs ends the test if there is an error: one that says that a server cannot be had skips it, where DENDRITE_TEST_REQUIRE is not set.
func Needs(t testing.TB, err error) {
	t.Helper()
	if err == nil {
		return
	}
	if !errors.Is(err, ErrMissing) {
		t.Fatal(err)
	}
	if os.Getenv(EnvRequire) != "" {
		t.Fatal(err)
	}
	t.Skipf("%v (make test gets what tests need)", err)
}

// One of each for the process, which ends them with itself.
var (
	ownPostgres = sync.OnceValues(func() (string, error) {
		if url := os.Getenv(EnvPostgres); url != "" {
			return url, nil
		}
		dir, err := os.MkdirTemp("", "dendrite-postgres-")
		if err != nil {
			return "", err
		}
		p, err := parts.NewPostgres(context.Background(), dir, "")
		if err != nil {
			return "", err
		}
		p.Discard = true
		return p.URL, p.Start(context.Background())
	})
	ownKafka = sync.OnceValues(func() (string, error) {
		if address := os.Getenv(EnvKafka); address != "" {
			return address, nil
		}
		dir, err := os.MkdirTemp("", "dendrite-kafka-")
		if err != nil {
			return "", err
		}
		k, err := parts.NewKafka(context.Background(), dir, "")
		if err != nil {
			return "", err
		}
		k.Discard = true
		return k.Address, k.Start(context.Background())
	})
)
