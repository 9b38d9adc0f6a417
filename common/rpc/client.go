package rpc

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/opentracing/opentracing-go"
	"github.com/opentracing/opentracing-go/ext"

	"github.com/matrix-org/dendrite/common/txguard"
)

const (
	// DefaultTimeout is of calls whose context has no deadline.
	DefaultTimeout = 30 * time.Second
	lookupEvery    = 3 * time.Second
	shunFor        = 2 * time.Second // an address that could not be reached is tried last for so long
)

// Client calls the components of a deployment.
type Client struct {
	secret string
	tracer opentracing.Tracer
	http   *http.Client
	peers  map[string]*Peers
}

// NewClient makes a client. peers has the configured URLs of each component.
func NewClient(secret string, peers map[string][]string, tracer opentracing.Tracer) (*Client, error) {
	c := &Client{secret: secret, tracer: tracer, peers: make(map[string]*Peers), http: &http.Client{
		Transport: &http.Transport{
			DialContext:         (&net.Dialer{Timeout: 2 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
			MaxIdleConnsPerHost: 64,
			IdleConnTimeout:     time.Minute,
			DisableCompression:  true,
		},
	}}
	for component, urls := range peers {
		p, err := NewPeers(urls)
		if err != nil {
			return nil, fmt.Errorf("peers.%s: %w", component, err)
		}
		c.peers[component] = p
	}
	return c, nil
}

// Dial fills the functions of a contract with calls of a component.
func Dial(c *Client, component string, contract any) error {
	peers := c.peers[component]
	if peers == nil {
		return fmt.Errorf("peers.%s is not configured", component)
	}
	return each(contract, func(name string, typed call, set func(any)) error {
		set(typed.dial(name, func(ctx context.Context, name, affinity string, request, response any) error {
			return c.call(ctx, peers, component, name, affinity, request, response)
		}))
		return nil
	})
}

func (c *Client) call(ctx context.Context, peers *Peers, component, name, affinity string, request, response any) error {
	full := component + "." + name
	if err := txguard.Check(ctx, "the call "+full); err != nil {
		return err
	}
	body, err := json.Marshal(request)
	if err != nil {
		return fmt.Errorf("%s: %w", full, err)
	}
	if _, has := ctx.Deadline(); !has {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, DefaultTimeout)
		defer cancel()
	}
	header := http.Header{"Content-Type": {"application/json"}, secretHeader: {c.secret}}
	if parent := opentracing.SpanFromContext(ctx); parent != nil {
		span := c.tracer.StartSpan(full, opentracing.ChildOf(parent.Context()), ext.SpanKindRPCClient)
		defer span.Finish()
		if err := c.tracer.Inject(span.Context(), opentracing.HTTPHeaders, opentracing.HTTPHeadersCarrier(header)); err != nil {
			span.LogKV("error", err.Error())
		}
	}
	var last error
	for wait := 20 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		for _, base := range peers.Order(ctx, affinity) {
			err := c.once(ctx, full, base, component, name, header, body, response)
			if err == nil || !errors.Is(err, ErrUnavailable) {
				return err
			}
			last = err
			peers.shun(base)
			if ctx.Err() != nil {
				break
			}
		}
		if last == nil {
			last = fmt.Errorf("%s: %w: peers.%s has no address now", full, ErrUnavailable, component)
		}
		select {
		case <-ctx.Done():
			return errors.Join(last, ctx.Err())
		case <-time.After(wait/2 + rand.N(wait)):
		}
	}
}

func (c *Client) once(ctx context.Context, full, base, component, name string, header http.Header, body []byte, response any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+path(component, name), bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("%s: %w", full, err)
	}
	req.Header = header.Clone()
	if deadline, has := ctx.Deadline(); has {
		req.Header.Set(deadlineHeader, strconv.FormatInt(max(1, time.Until(deadline).Milliseconds()), 10))
	}
	res, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("%s: %w: %w", full, ErrUnavailable, err)
	}
	defer res.Body.Close() //nolint:errcheck // it is read to its end
	raw, err := io.ReadAll(io.LimitReader(res.Body, maxBytes+1))
	if err != nil {
		return fmt.Errorf("%s: %w: %w", full, ErrUnavailable, err)
	}
	switch {
	case len(raw) > maxBytes:
		return fmt.Errorf("%s: the answer has more than %d bytes", full, maxBytes)
	case res.StatusCode == http.StatusOK:
		if err := json.Unmarshal(raw, response); err != nil {
			return fmt.Errorf("%s: %w", full, err)
		}
		return nil
	case res.StatusCode == http.StatusUnprocessableEntity, res.StatusCode == http.StatusServiceUnavailable:
		var failed wireError
		if err := json.Unmarshal(raw, &failed); err == nil {
			return failed.error(full)
		}
	case res.StatusCode == http.StatusNotFound:
		// A process of this component that is starting, or of another release.
		return fmt.Errorf("%s: %w: not served at %s", full, ErrUnavailable, base)
	}
	return fmt.Errorf("%s: status %d from %s: %.200s", full, res.StatusCode, base, raw)
}

// Peers are the addresses of a component. A host name stands for all its addresses, which are looked up again every few
// seconds, so that a replica is added by starting it.
type Peers struct {
	urls []*url.URL

	mu      sync.Mutex
	bases   []string
	looked  time.Time
	shunned map[string]time.Time
}

// NewPeers checks the configured URLs.
func NewPeers(urls []string) (*Peers, error) {
	p := &Peers{shunned: make(map[string]time.Time)}
	for _, s := range urls {
		u, err := url.Parse(s)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return nil, fmt.Errorf("%q is not a URL such as http://roomserver:7870", s)
		}
		p.urls = append(p.urls, u)
	}
	return p, nil
}

// Order lists the base URLs to try: first the one that a key belongs to (the one of highest hash, so that most keys stay where
// they are when addresses come and go), or any if there is no key; those that failed just now come last.
func (p *Peers) Order(ctx context.Context, key string) []string {
	bases := slices.Clone(p.lookup(ctx))
	if key == "" {
		rand.Shuffle(len(bases), func(i, j int) { bases[i], bases[j] = bases[j], bases[i] })
	} else {
		slices.SortFunc(bases, func(a, b string) int {
			if weight(a, key) > weight(b, key) {
				return -1
			}
			return 1
		})
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	slices.SortStableFunc(bases, func(a, b string) int {
		return btoi(now.Before(p.shunned[a])) - btoi(now.Before(p.shunned[b]))
	})
	return bases
}

func (p *Peers) shun(base string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.shunned[base] = time.Now().Add(shunFor)
}

func (p *Peers) lookup(ctx context.Context) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.looked) < lookupEvery && len(p.bases) > 0 {
		return p.bases
	}
	var bases []string
	for _, u := range p.urls {
		host, port := u.Hostname(), u.Port()
		if net.ParseIP(host) != nil || u.Scheme == "https" {
			bases = append(bases, u.Scheme+"://"+u.Host)
			continue
		}
		addresses, err := net.DefaultResolver.LookupHost(ctx, host)
		if err != nil {
			continue // a name without addresses: its replicas are not running
		}
		for _, a := range addresses {
			if host == "localhost" && net.ParseIP(a).To4() == nil {
				continue
			}
			bases = append(bases, u.Scheme+"://"+net.JoinHostPort(a, port))
		}
	}
	slices.Sort(bases)
	if bases = slices.Compact(bases); len(bases) > 0 {
		p.bases, p.looked = bases, time.Now()
	}
	return p.bases
}

func weight(base, key string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(base)) // a hash takes everything
	_, _ = h.Write([]byte(key))
	x := h.Sum64()
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	return x ^ x>>33
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}
