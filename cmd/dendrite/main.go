// Command dendrite is the Matrix homeserver: all components in one process, each component as a process of its own, and the
// operator's tools.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"
)

// garbage is how large the garbage may grow, in percent of what is in use, before it is collected. Go's 100 takes a fifth more memory,
// and a tenth less CPU where much is read. The environment's GOGC overrides it.
const garbage = 60

// leastGarbage is about how many bytes of garbage there are before it is collected, however little is in use. Without
// it, a small server that is asked much spends a third of its CPU on that.
const leastGarbage = 16 << 20

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbage)
		// What is in use has this much more, of which no byte is ever touched: it takes no memory.
		defer runtime.KeepAlive(make([]byte, leastGarbage*100/garbage))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// After the first signal the process drains; a second one ends it at once.
	context.AfterFunc(ctx, stop)
	if err := rootCommand().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "dendrite:", err)
		os.Exit(1)
	}
}
