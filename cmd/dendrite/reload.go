package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/matrix-org/dendrite/common/registration"
)

// reload reads the registrations of application services again when the process gets SIGHUP, until ctx ends. Files with a
// fault change nothing.
func (p *process) reload(ctx context.Context, hups <-chan os.Signal) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hups:
		}
		set, err := registration.Read(p.config.ApplicationServices, p.config.Matrix.ServerName)
		if err != nil {
			p.log.WithError(err).Error("the registrations of application services are not read again: those from before stay in force")
			continue
		}
		p.registrations.Replace(set)
		p.log.WithField("services", len(set.All())).Info("the registrations of application services are read again")
	}
}

// hangups catches SIGHUP from now on, so that it never ends the process. stop ends that.
func hangups() (hups <-chan os.Signal, stop func()) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGHUP)
	return c, func() { signal.Stop(c) }
}
