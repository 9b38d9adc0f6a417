package httputil

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

const headerForwarded = "X-Forwarded-For"

// Proxies are the networks of the reverse proxies whose X-Forwarded-For is believed. Whatever else names an address
// there could name any.
type Proxies []netip.Prefix

func (p Proxies) trusts(address netip.Addr) bool {
	for _, network := range p {
		if network.Contains(address) {
			return true
		}
	}
	return false
}

// Client is the address that a request came from: the peer's, or, where that is a proxy, the right-most that no proxy
// has. What stands to the left of it, or of what is no address, a client may have written itself.
func (p Proxies) Client(r *http.Request) (client netip.Addr, err error) {
	client, err = hostAddress(r.RemoteAddr)
	if err != nil || !p.trusts(client) {
		return client, err
	}
	// Some proxies write a line of their own below the one that the client sent.
	list := strings.Split(strings.Join(r.Header.Values(headerForwarded), ","), ",")
	for i := len(list) - 1; i >= 0; i-- {
		named, err := hostAddress(strings.TrimSpace(list[i]))
		if err != nil {
			break
		}
		if client = named; !p.trusts(named) {
			break
		}
	}
	return client, nil
}

// hostAddress reads an address that may have a port.
func hostAddress(s string) (netip.Addr, error) {
	if host, _, err := net.SplitHostPort(s); err == nil {
		s = host
	}
	address, err := netip.ParseAddr(strings.Trim(s, "[]"))
	return address.Unmap().WithZone(""), err
}

// ClientAddress is the address that a request came from, as the Router has found it.
func ClientAddress(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

// Network is what an address is limited by: of IPv6, one subscriber has at least the 64 lower bits to choose from.
func Network(address string) string {
	ip, err := netip.ParseAddr(address)
	if err != nil || ip.Unmap().Is4() {
		return address
	}
	prefix, err := ip.WithZone("").Prefix(64)
	if err != nil {
		return address
	}
	return prefix.String()
}
