package deploy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/matrix-org/dendrite/common/test/parts"
)

// rereadWithin is how long a process may take to read registrations again.
const rereadWithin = 20 * time.Second

// writeRegistrations makes the folder of registrations, and those that the server has from its start.
func (d *Deployment) writeRegistrations(texts map[string]string) error {
	dir := filepath.Join(d.dir, "registrations")
	d.Config.ApplicationServices.ConfigDir = dir
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	for name, text := range texts {
		if err := os.WriteFile(filepath.Join(dir, name+".yaml"), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// Register writes the registration of an application service to a file with a name, or removes it if the text is empty,
// and returns when every process that runs has it. It is for tests that share a deployment too.
func (d *Deployment) Register(name, text string) error {
	d.registrations.Lock()
	defer d.registrations.Unlock()
	file := filepath.Join(d.Config.ApplicationServices.ConfigDir, name+".yaml")
	var err error
	if text == "" {
		err = os.Remove(file)
	} else if err = os.WriteFile(file+".new", []byte(text), 0o600); err == nil {
		// A process that starts at this moment reads all of it, or none.
		err = os.Rename(file+".new", file)
	}
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), rereadWithin)
	defer cancel()
	var waits []func() error
	for _, s := range d.servers {
		wait, err := reread(ctx, s)
		if err != nil {
			return err
		}
		waits = append(waits, wait)
	}
	var all []error
	for _, wait := range waits {
		all = append(all, wait())
	}
	return errors.Join(all...)
}

// reread tells a process to read its registrations again, and returns what waits until it has.
func reread(ctx context.Context, s *parts.Server) (wait func() error, err error) {
	select {
	case <-s.Ended():
		return func() error { return nil }, nil // the next one reads them at its start
	default:
	}
	before, err := rereads(s)
	if err != nil {
		return nil, err
	}
	if err := s.Tell(syscall.SIGHUP); err != nil {
		return nil, err
	}
	return func() error {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			switch now, err := rereads(s); {
			case err != nil:
				return err
			case now.failed > before.failed:
				return fmt.Errorf("%s does not take the registrations: its log tells why", s.Name)
			case now.done > before.done:
				return nil
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("%s did not read the registrations again: %w", s.Name, ctx.Err())
			case <-s.Ended():
				return nil
			case <-tick.C:
			}
		}
	}, nil
}

type readings struct{ done, failed int }

// rereads counts in a process's log how often it has read registrations again. It knows the messages of cmd/dendrite.
func rereads(s *parts.Server) (readings, error) {
	log, err := os.ReadFile(s.Log)
	return readings{done: bytes.Count(log, []byte("the registrations of application services are read again")),
		failed: bytes.Count(log, []byte("the registrations of application services are not read again"))}, err
}
