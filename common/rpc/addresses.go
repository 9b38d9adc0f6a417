package rpc

import (
	"context"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/matrix-org/dendrite/common/mxerr"
)

const (
	lookupEvery = 3 * time.Second // how long the addresses of a host name are taken for current
	avoidFor    = time.Second     // how long an address that failed is tried last
)

// Addresses are the replicas of one component: every address of every host named in peers.<component>, looked up again every
// few seconds, so that a replica is added by starting it.
type Addresses struct {
	component string
	urls      []*url.URL
	lookup    func(ctx context.Context, host string) ([]netip.Addr, error)

	lookingUp sync.Mutex // whoever holds it refreshes; the others use what is there

	mu      sync.Mutex
	current []string // host:port
	asked   time.Time
	failed  map[string]time.Time
}

// NewAddresses reads the URLs of peers.<component>.
func NewAddresses(component string, urls []string) (*Addresses, error) {
	a := &Addresses{component: component, failed: make(map[string]time.Time),
		lookup: func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}}
	for _, s := range urls {
		u, err := url.Parse(s)
		if err != nil || u.Scheme != "http" || u.Host == "" || strings.Trim(u.Path, "/") != "" {
			return nil, fmt.Errorf("peers.%s: %q must have the form http://host:port", component, s)
		}
		a.urls = append(a.urls, u)
	}
	return a, nil
}

// Order lists the addresses in the order in which a call with this affinity key should try them. Without a key the order is
// random.
func (a *Addresses) Order(ctx context.Context, key string) ([]string, error) {
	if len(a.urls) == 0 {
		return nil, fmt.Errorf("%w: peers.%s is empty: name the URLs of its internal listeners", mxerr.ErrUnavailable, a.component)
	}
	a.refresh(ctx)
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.current) == 0 {
		return nil, fmt.Errorf("%w: no host of peers.%s has an address", mxerr.ErrUnavailable, a.component)
	}
	order := slices.Clone(a.current)
	if len(order) == 1 {
		return order, nil
	}
	if key == "" {
		rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	} else {
		slices.SortFunc(order, func(x, y string) int { return compareWeight(x, y, key) })
	}
	now := time.Now()
	slices.SortStableFunc(order, func(x, y string) int { return b2i(now.Before(a.failed[x])) - b2i(now.Before(a.failed[y])) })
	return order, nil
}

// Failed says that an address could not be reached, or refused.
func (a *Addresses) Failed(address string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	for old, until := range a.failed {
		if now.After(until) {
			delete(a.failed, old)
		}
	}
	a.failed[address] = now.Add(avoidFor)
}

func (a *Addresses) refresh(ctx context.Context) {
	a.mu.Lock()
	first, stale := a.asked.IsZero(), time.Since(a.asked) > lookupEvery
	a.mu.Unlock()
	if !stale {
		return
	}
	if first {
		a.lookingUp.Lock()
	} else if !a.lookingUp.TryLock() {
		return
	}
	defer a.lookingUp.Unlock()
	var found []string
	for _, u := range a.urls {
		host, port := u.Hostname(), u.Port()
		if port == "" {
			port = "80"
		}
		if _, err := netip.ParseAddr(host); err == nil || host == "localhost" {
			found = append(found, net.JoinHostPort(host, port))
			continue
		}
		// A name that cannot be looked up has no replicas now; the addresses of before are kept if there is nothing else.
		addrs, err := a.lookup(ctx, host)
		if err != nil {
			continue
		}
		for _, addr := range addrs {
			found = append(found, net.JoinHostPort(addr.Unmap().String(), port))
		}
	}
	slices.Sort(found)
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(found) > 0 {
		a.current = slices.Compact(found)
		a.asked = time.Now()
	}
}

// compareWeight is rendezvous hashing: each key ranks the addresses in an order of its own, the same in every process, and an
// address that comes or goes moves only the keys that it takes or leaves.
func compareWeight(x, y, key string) int {
	wx, wy := weight(x, key), weight(y, key)
	switch {
	case wx > wy:
		return -1
	case wx < wy:
		return 1
	}
	return strings.Compare(x, y)
}

func weight(address, key string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(key))
	h.Write([]byte{0})
	h.Write([]byte(address))
	// FNV alone moves the high bits too little for inputs that differ at their end.
	w := h.Sum64()
	w ^= w >> 33
	w *= 0xff51afd7ed558ccd
	return w ^ w>>33
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}
