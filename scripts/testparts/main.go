// Command testparts runs a command beside a Postgres and a Kafka of its own:
//
//	go run ./scripts/testparts go test ./...
//
// It gets both if the machine has none, starts them, names them to the command in the environment variables of common/test, ends them
// afterwards, and exits as the command did.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"github.com/matrix-org/dendrite/common/test"
	"github.com/matrix-org/dendrite/common/test/parts"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: testparts COMMAND [ARGUMENT…]")
		os.Exit(2)
	}
	// A Ctrl-C reaches the command too, which ends by itself; this only waits for it.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1], os.Args[2:])
	if exit, is := errors.AsType[*exec.ExitError](err); is {
		os.Exit(max(1, exit.ExitCode()))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "testparts:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, name string, args []string) (err error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = os.Environ()
	for _, start := range []func(context.Context) (string, *parts.Server, error){postgres, kafka} {
		variable, server, startErr := start(ctx)
		if startErr != nil {
			return startErr
		}
		if server != nil {
			defer func() { err = errors.Join(err, server.Stop()) }()
		}
		cmd.Env = append(cmd.Env, variable)
	}
	return cmd.Run()
}

// postgres starts a cluster, unless the environment names one.
func postgres(ctx context.Context) (string, *parts.Server, error) {
	if url := os.Getenv(test.EnvPostgres); url != "" {
		return test.EnvPostgres + "=" + url, nil, nil
	}
	dir, err := os.MkdirTemp("", "dendrite-postgres-")
	if err != nil {
		return "", nil, err
	}
	p, err := parts.NewPostgres(ctx, dir, "")
	if err != nil {
		return "", nil, err
	}
	p.Discard = true
	return test.EnvPostgres + "=" + p.URL, p.Server, p.Start(ctx)
}

// kafka starts a broker, unless the environment names one.
func kafka(ctx context.Context) (string, *parts.Server, error) {
	if address := os.Getenv(test.EnvKafka); address != "" {
		return test.EnvKafka + "=" + address, nil, nil
	}
	dir, err := os.MkdirTemp("", "dendrite-kafka-")
	if err != nil {
		return "", nil, err
	}
	k, err := parts.NewKafka(ctx, dir, "")
	if err != nil {
		return "", nil, err
	}
	k.Discard = true
	return test.EnvKafka + "=" + k.Address, k.Server, k.Start(ctx)
}
