package rpc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/opentracing/opentracing-go"
	"github.com/opentracing/opentracing-go/ext"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"

	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/txguard"
)

// ClientOptions are what a Client needs of the process.
type ClientOptions struct {
	Secret     string
	Peers      map[string][]string // URLs of internal listeners, by component
	Tracer     opentracing.Tracer
	Registerer prometheus.Registerer
	Log        *logrus.Entry
}

// Client sends calls to other processes. It is safe for concurrent use and keeps its connections.
type Client struct {
	secret  string
	peers   map[string]*Addresses
	tracer  opentracing.Tracer
	log     *logrus.Entry
	http    *http.Client
	retries *prometheus.CounterVec
}

// NewClient checks the URLs of the peers. It connects to nobody yet.
func NewClient(o ClientOptions) (*Client, error) {
	c := &Client{secret: o.Secret, peers: make(map[string]*Addresses), tracer: orNoop(o.Tracer), log: o.Log,
		retries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "dendrite_rpc_retries_total",
			Help: "Attempts of calls that did not reach their component and were repeated.",
		}, []string{"component"})}
	if c.log == nil {
		c.log = logrus.NewEntry(logrus.StandardLogger())
	}
	for component, urls := range o.Peers {
		addresses, err := NewAddresses(component, urls)
		if err != nil {
			return nil, err
		}
		c.peers[component] = addresses
	}
	if o.Registerer != nil {
		if err := o.Registerer.Register(c.retries); err != nil {
			return nil, fmt.Errorf("rpc: %w", err)
		}
	}
	c.http = &http.Client{Transport: &http.Transport{
		DialContext:         (&net.Dialer{Timeout: 2 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		MaxIdleConns:        1024,
		MaxIdleConnsPerHost: 256,
		IdleConnTimeout:     time.Minute,
		DisableCompression:  true,
		ReadBufferSize:      16 << 10,
		WriteBufferSize:     16 << 10,
	}}
	return c, nil
}

// Transport is the client's pool of connections, for others who talk to internal listeners.
func (c *Client) Transport() http.RoundTripper { return c.http.Transport }

// Addresses are those of a component; nil if peers does not name it.
func (c *Client) Addresses(component string) *Addresses { return c.peers[component] }

// Close drops connections that are not in use.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Dial fills a contract with functions that call a component of another process. It does not connect: a component need not
// run yet.
func Dial(client *Client, component string, api any) error {
	addresses := client.peers[component]
	if addresses == nil {
		addresses = &Addresses{component: component}
	}
	return eachCall(api, func(_ int, name string, f field) error {
		p := &peerCall{Client: client, component: component, operation: component + "." + name,
			path: "/rpc/" + component + "/" + name, addresses: addresses}
		f.dial(p.roundTrip)
		return nil
	})
}

// peerCall is one call of a contract in another process.
type peerCall struct {
	*Client
	component, operation, path string
	addresses                  *Addresses
}

func (p *peerCall) roundTrip(ctx context.Context, req, res any) (err error) {
	if err := txguard.Check(ctx, "the call "+p.operation); err != nil {
		return err
	}
	if _, has := ctx.Deadline(); !has {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, DefaultTimeout)
		defer cancel()
	}
	var parent opentracing.SpanContext
	if span := opentracing.SpanFromContext(ctx); span != nil {
		parent = span.Context()
	}
	span := p.tracer.StartSpan(p.operation, opentracing.ChildOf(parent), ext.SpanKindRPCClient)
	defer func() { finish(span, err) }()

	body := new(bytes.Buffer)
	if err := encode(body, req); err != nil {
		return fmt.Errorf("%s: encoding the request: %w", p.operation, err)
	}
	if body.Len() > MaxBytes {
		return fmt.Errorf("%s: the request has %d bytes, more than %d", p.operation, body.Len(), MaxBytes)
	}
	key := ""
	if r, is := req.(affine); is {
		key = r.AffinityKey()
	}
	var last error
	for wait := 20 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		order, err := p.addresses.Order(ctx, key)
		if err != nil {
			last = err
		}
		for _, address := range order {
			done, err := p.attempt(ctx, span, address, body.Bytes(), res)
			if done {
				return err
			}
			if ctx.Err() != nil {
				return p.unavailable(ctx, last, err)
			}
			last = err
			p.addresses.Failed(address)
			p.retries.WithLabelValues(p.component).Inc()
			p.log.WithError(err).WithFields(logrus.Fields{"call": p.operation, "address": address}).Debug("call did not arrive")
		}
		select {
		case <-ctx.Done():
			return p.unavailable(ctx, last, ctx.Err())
		case <-time.After(wait/2 + rand.N(wait/2)):
		}
	}
}

// unavailable is the error of a call that ran out of time: mxerr.ErrUnavailable if the peer never answered at all, else the
// context's own error.
func (p *peerCall) unavailable(ctx context.Context, last, now error) error {
	if last == nil || errors.Is(ctx.Err(), context.Canceled) {
		return &remote{fmt.Sprintf("%s: %v", p.operation, now), ctx.Err()}
	}
	return &remote{fmt.Sprintf("%s: %v", p.operation, last), mxerr.ErrUnavailable}
}

// attempt sends the request to one address. It is done if the component has answered.
func (p *peerCall) attempt(ctx context.Context, span opentracing.Span, address string, body []byte, res any) (done bool, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+address+p.path, bytes.NewReader(body))
	if err != nil {
		return true, fmt.Errorf("%s: %w", p.operation, err)
	}
	r.Header.Set("Content-Type", "application/json")
	Authorize(r, p.secret)
	if deadline, has := ctx.Deadline(); has {
		r.Header.Set(headerTimeout, strconv.FormatInt(max(1, time.Until(deadline).Milliseconds()), 10))
	}
	if err := p.tracer.Inject(span.Context(), opentracing.HTTPHeaders, opentracing.HTTPHeadersCarrier(r.Header)); err != nil {
		p.log.WithError(err).Debug("trace context not sent")
	}
	answer, err := p.http.Do(r)
	if err != nil {
		return false, err
	}
	defer answer.Body.Close()
	data, err := readAll(answer.Body, answer.ContentLength)
	if err != nil {
		return false, fmt.Errorf("reading the response: %w", err)
	}
	switch {
	case answer.StatusCode == http.StatusOK:
		if err := decode(data, res); err != nil {
			return true, &Error{Operation: p.operation, Message: "the response is of another form: " + err.Error()}
		}
		return true, nil
	case answer.Header.Get(headerError) != "":
		w, err := decodeError(data)
		if err != nil {
			return true, &Error{Operation: p.operation, Message: "an error that cannot be read: " + err.Error()}
		}
		return true, w.err(p.operation)
	case answer.StatusCode == http.StatusServiceUnavailable, answer.StatusCode == http.StatusBadGateway:
		return false, fmt.Errorf("%s: it is starting or stopping", address)
	}
	return true, &Error{Operation: p.operation, Message: fmt.Sprintf("%s answered %s: %s", address, answer.Status, firstLine(data))}
}

func firstLine(data []byte) string {
	line, _, _ := bytes.Cut(data[:min(len(data), 200)], []byte("\n"))
	return string(line)
}
