package parts

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
)

// Ports come in blocks. A process that gives ports holds the first port of a block open until it ends: so no other
// process gives ports of that block, and it gives each of them once.
const (
	// Ports are below those from which systems pick for outgoing connections: one of those could be taken before the
	// server listens.
	firstPort, lastPort = 15_000, 30_000
	blockSize           = 100
)

// ports are the blocks that this process holds.
var ports struct {
	sync.Mutex
	held []net.Listener
	next int // the port to give next
	end  int // the first port after the newest block
}

// FreePort is a port on which nobody listens now, and which nobody else is given while this process lives.
func FreePort() (string, error) {
	ports.Lock()
	defer ports.Unlock()
	for {
		if ports.next == ports.end {
			if err := holdBlock(); err != nil {
				return "", err
			}
		}
		port := ports.next
		ports.next++
		// A program that does not ask here may have it.
		if l, err := listenOn(port); err == nil {
			return strconv.Itoa(port), l.Close()
		}
	}
}

// holdBlock takes a block that no process holds.
func holdBlock() error {
	const blocks = (lastPort - firstPort) / blockSize
	for _, block := range rand.Perm(blocks) {
		first := firstPort + block*blockSize
		if l, err := listenOn(first); err == nil {
			ports.held = append(ports.held, l)
			ports.next, ports.end = first+1, first+blockSize
			return nil
		}
	}
	return fmt.Errorf("all ports from %d to %d are in use", firstPort, lastPort)
}

func listenOn(port int) (net.Listener, error) {
	return net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
}
