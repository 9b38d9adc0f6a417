// Command dendrite is the Matrix homeserver: all components in one process, each component as a process of its own, and the
// operator's tools.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// After the first signal the process drains; a second one ends it at once.
	context.AfterFunc(ctx, stop)
	if err := rootCommand().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "dendrite:", err)
		os.Exit(1)
	}
}
