// Command polylith runs every component as a process of its own on this machine, with a real Postgres and a real Kafka:
//
//	make polylith
//
// Everything it keeps, its dendrite-config.yaml included, is in ./polylith-data. It stays in the foreground; Ctrl-C stops all of it.
// What ends without being told to is started again, as a supervisor would.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/matrix-org/dendrite/common/config"
	"github.com/matrix-org/dendrite/common/test/parts"
)

const (
	public   = "127.0.0.1:8008"
	database = "dendrite"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	if err := run(ctx, "polylith-data"); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "polylith:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, dir string) (err error) {
	dir, err = filepath.Abs(dir)
	if err != nil {
		return err
	}
	logs := filepath.Join(dir, "logs")
	if err := os.MkdirAll(logs, 0o755); err != nil {
		return err
	}
	binary, file := filepath.Join(dir, "dendrite"), filepath.Join(dir, "dendrite-config.yaml")
	if err := command("go", "build", "-o", binary, "./cmd/dendrite"); err != nil {
		return err
	}
	cfg, err := configuration(binary, dir, file)
	if err != nil {
		return err
	}
	broker, postgres, err := infrastructure(ctx, cfg, dir)
	if err != nil {
		return err
	}
	var components []*parts.Server
	for _, name := range config.Components() {
		components = append(components, &parts.Server{Name: name, Command: []string{binary, name, "--config", file}, Dir: dir,
			Log: filepath.Join(logs, name+".log"), Output: &prefixed{name: name}, Signal: "TERM",
			Probe: parts.Healthy("http://" + cfg.Listen.For(name).Internal)})
	}
	var supervisors, starting sync.WaitGroup
	for _, s := range components {
		starting.Add(1)
		supervisors.Go(func() { supervise(ctx, s, sync.OnceFunc(starting.Done)) })
	}
	for _, s := range []*parts.Server{broker, postgres} {
		supervisors.Go(func() { supervise(ctx, s, func() {}) })
	}
	starting.Wait()
	if ctx.Err() == nil {
		fmt.Printf("The polylith serves %s at http://%s. Its logs are in %s.\n", cfg.Matrix.ServerName, public, logs)
		fmt.Printf("To make an account: %s create-account --config %s --username NAME [--admin]\nCtrl-C stops all of it.\n", binary, file)
	}
	<-ctx.Done()
	supervisors.Wait()
	// The components end before what they stand on.
	return errors.Join(stop(components...), stop(broker, postgres))
}

// supervise keeps a server running until ctx ends. started is called whenever it runs, and when it will not run any more.
func supervise(ctx context.Context, s *parts.Server, started func()) {
	defer started()
	for ctx.Err() == nil {
		if s.Ended() == nil || isClosed(s.Ended()) {
			if err := s.Start(ctx); err != nil {
				fmt.Fprintln(os.Stderr, "polylith:", err)
				select {
				case <-time.After(time.Second):
				case <-ctx.Done():
				}
				continue
			}
		}
		started()
		select {
		case <-ctx.Done():
		case <-s.Ended():
			fmt.Fprintf(os.Stderr, "polylith: %s ended with status %d: starting it again\n", s.Name, s.Status())
		}
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// stop ends servers, all at once.
func stop(servers ...*parts.Server) error {
	var all errgroup.Group
	for _, s := range servers {
		all.Go(s.Stop)
	}
	return all.Wait()
}

// configuration reads the one that is there, or makes one. Its ports of Postgres and Kafka are kept, so that what they hold is found.
func configuration(binary, dir, file string) (*config.Config, error) {
	if _, err := os.Stat(file); err == nil {
		return config.Load(file)
	}
	postgres, err := parts.FreePort()
	if err != nil {
		return nil, err
	}
	kafka, err := parts.FreePort()
	if err != nil {
		return nil, err
	}
	err = command(binary, "generate-config", "--server-name", "localhost", "--dir", dir,
		"--database", "postgresql://dendrite@127.0.0.1:"+postgres+"/"+database+"?sslmode=disable", "--kafka", "127.0.0.1:"+kafka)
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	// clientapi takes the place of the monolith's listener.
	edited := strings.Replace(string(text), config.Default().Listen.ClientAPI.Public, public, 1)
	if err := os.WriteFile(file, []byte(edited), 0o600); err != nil {
		return nil, err
	}
	return config.Load(file)
}

// infrastructure starts Postgres and Kafka where the configuration expects them.
func infrastructure(ctx context.Context, cfg *config.Config, dir string) (broker, postgres *parts.Server, err error) {
	u, err := url.Parse(cfg.Database.ConnectionString)
	if err != nil {
		return nil, nil, err
	}
	if len(cfg.Kafka.Addresses) != 1 {
		return nil, nil, fmt.Errorf("kafka.addresses: this starts one broker, and the configuration names %d", len(cfg.Kafka.Addresses))
	}
	_, kafkaPort, err := net.SplitHostPort(cfg.Kafka.Addresses[0])
	if err != nil {
		return nil, nil, err
	}
	p, err := parts.NewPostgres(ctx, filepath.Join(dir, "postgres"), u.Port())
	if err != nil {
		return nil, nil, err
	}
	k, err := parts.NewKafka(ctx, filepath.Join(dir, "kafka"), kafkaPort)
	if err != nil {
		return nil, nil, err
	}
	var both errgroup.Group
	both.Go(func() error { return k.Start(ctx) })
	both.Go(func() error {
		if err := p.Start(ctx); err != nil {
			return err
		}
		_, err := parts.CreateDatabase(ctx, p.URL, strings.TrimPrefix(u.Path, "/"))
		return err
	})
	if err := both.Wait(); err != nil {
		return nil, nil, errors.Join(err, k.Stop(), p.Stop())
	}
	return k.Server, p.Server, nil
}

func command(name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(name), err)
	}
	return nil
}
