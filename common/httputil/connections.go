package httputil

import (
	"net"
	"sync"
)

// LimitConnections makes a listener that closes connections of a network which has as many as it may. Proxies, which
// speak for many, may have any number.
func LimitConnections(l net.Listener, most int, proxies Proxies) net.Listener {
	return &limitedListener{Listener: l, most: most, proxies: proxies, open: make(map[string]int)}
}

type limitedListener struct {
	net.Listener
	most    int
	proxies Proxies

	mu   sync.Mutex
	open map[string]int // by network
}

func (l *limitedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		peer, err := hostAddress(c.RemoteAddr().String())
		if err != nil || l.proxies.trusts(peer) {
			return c, nil
		}
		if network := Network(peer.String()); l.take(network) {
			return &limitedConn{c, sync.OnceFunc(func() { l.give(network) })}, nil
		}
		_ = c.Close() // nothing was said on it
	}
}

func (l *limitedListener) take(network string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[network] >= l.most {
		return false
	}
	l.open[network]++
	return true
}

func (l *limitedListener) give(network string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[network]--; l.open[network] == 0 {
		delete(l.open, network)
	}
}

type limitedConn struct {
	net.Conn
	closed func()
}

func (c *limitedConn) Close() error {
	c.closed()
	return c.Conn.Close()
}

// CloseWrite is as that of the connection inside.
func (c *limitedConn) CloseWrite() error { return closeWrite(c.Conn) }
