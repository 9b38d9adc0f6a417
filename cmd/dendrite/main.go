// Command dendrite is the Matrix homeserver: all components in one process, each component as a process of its own, and the
// operator's tools.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
)

// garbage is how large the garbage may grow, in percent of what is in use, before it is collected. Go's 100 takes a fifth more memory,
// and a tenth less CPU where much is read. The environment's GOGC overrides it.
const garbage = 60

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbage)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// After the first signal the process drains; a second one ends it at once.
	context.AfterFunc(ctx, stop)
	if err := rootCommand().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "dendrite:", err)
		os.Exit(1)
	}
}
