package httputil

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	stdproxy "net/http/httputil"
	"strings"
	"sync"
	"time"

	"github.com/opentracing/opentracing-go"
	"github.com/opentracing/opentracing-go/ext"
	"github.com/sirupsen/logrus"

	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/rpc"
)

// Owned says which component serves a path and everything below it. Segments may be a variable * or a choice {a|b}. The longest
// path that leads to a request's is the one that counts.
type Owned struct{ Path, Component string }

// Owners finds the owner of a path.
type Owners struct{ root owner }

type owner struct {
	component string
	literal   map[string]*owner
	any       *owner
}

// NewOwners reads a table of owned paths.
func NewOwners(table []Owned) *Owners {
	o := new(Owners)
	for _, entry := range table {
		o.root.add(strings.Split(strings.TrimPrefix(entry.Path, "/"), "/"), entry.Component)
	}
	return o
}

func (o *owner) add(segments []string, component string) {
	if len(segments) == 0 {
		o.component = component
		return
	}
	if segments[0] == "*" {
		if o.any == nil {
			o.any = new(owner)
		}
		o.any.add(segments[1:], component)
		return
	}
	if o.literal == nil {
		o.literal = make(map[string]*owner)
	}
	for _, choice := range strings.Split(strings.Trim(segments[0], "{}"), "|") {
		if o.literal[choice] == nil {
			o.literal[choice] = new(owner)
		}
		o.literal[choice].add(segments[1:], component)
	}
}

// Of is the component that owns an escaped path, or nothing.
func (o *Owners) Of(path string) string {
	component, _ := o.root.find(path, 0)
	return component
}

func (o *owner) find(path string, depth int) (component string, at int) {
	component, at = o.component, depth
	if path == "" {
		return component, at
	}
	segment, rest, ok := next(path)
	if !ok {
		return component, at
	}
	for _, below := range []*owner{o.literal[segment], o.any} {
		if below == nil {
			continue
		}
		if c, d := below.find(rest, depth+1); c != "" && d > at {
			component, at = c, d
		}
	}
	return component, at
}

// passOnFor is how long the front door looks for a replica that takes a request, before it answers that there is none.
const passOnFor = 10 * time.Second

// FrontDoor passes requests on to the internal listener of the component that owns their path, and streams the answer back: it
// sets no time limit of its own, and when the client goes, so does the request. A request that was passed on is never passed on
// again (Router.Local), so that there are no loops.
type FrontDoor struct {
	owners    *Owners
	client    *rpc.Client
	secret    string
	tracer    opentracing.Tracer
	log       *logrus.Entry
	transport http.RoundTripper
	proxy     *stdproxy.ReverseProxy
}

// FrontDoorDeps are what a FrontDoor uses.
type FrontDoorDeps struct {
	Owners *Owners
	Client *rpc.Client
	Secret string
	Tracer opentracing.Tracer
	Log    *logrus.Entry
}

// NewFrontDoor makes a FrontDoor.
func NewFrontDoor(d FrontDoorDeps) *FrontDoor {
	if d.Tracer == nil {
		d.Tracer = opentracing.NoopTracer{}
	}
	f := &FrontDoor{owners: d.Owners, client: d.Client, secret: d.Secret, tracer: d.Tracer, log: d.Log, transport: d.Client.Transport()}
	f.proxy = &stdproxy.ReverseProxy{
		Rewrite:       f.rewrite,
		Transport:     f,
		FlushInterval: -1,
		BufferPool:    &buffers{},
		ErrorHandler:  f.failed,
		ModifyResponse: func(answer *http.Response) error {
			for name := range corsHeader {
				answer.Header.Del(name) // the Router of this process has set it
			}
			return nil
		},
	}
	return f
}

// ServeHTTP passes a request on.
func (f *FrontDoor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	component := f.owners.Of(r.URL.EscapedPath())
	if component == "" || f.client.Addresses(component) == nil {
		WriteError(w, mxerr.Unrecognized("there is no endpoint %s", r.URL.Path))
		return
	}
	span := f.tracer.StartSpan("pass on to " + component)
	defer span.Finish()
	ext.HTTPMethod.Set(span, r.Method)
	ctx := opentracing.ContextWithSpan(context.WithValue(r.Context(), ownerKey{}, component), span)
	f.proxy.ServeHTTP(w, r.WithContext(ctx))
}

type ownerKey struct{}

func (f *FrontDoor) rewrite(p *stdproxy.ProxyRequest) {
	p.Out.URL.Scheme = "http"
	p.Out.URL.Host = p.In.Host // replaced by the address of a replica in RoundTrip
	p.Out.Host = p.In.Host
	p.Out.Header.Set(headerForwarded, ClientAddress(p.In))
	rpc.Authorize(p.Out, f.secret)
	if span := opentracing.SpanFromContext(p.In.Context()); span != nil {
		if err := f.tracer.Inject(span.Context(), opentracing.HTTPHeaders, opentracing.HTTPHeadersCarrier(p.Out.Header)); err != nil {
			f.log.WithError(err).Debug("trace context not sent")
		}
	}
}

// RoundTrip tries replicas in turn until one takes the request. Requests of one token prefer one replica, for its caches.
func (f *FrontDoor) RoundTrip(r *http.Request) (*http.Response, error) {
	component, _ := r.Context().Value(ownerKey{}).(string)
	addresses := f.client.Addresses(component)
	until := time.Now().Add(passOnFor)
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		order, err := addresses.Order(r.Context(), token(r))
		for _, address := range order {
			out := *r
			url := *r.URL
			url.Host = address
			out.URL = &url
			if r.Body != nil && r.Body != http.NoBody {
				out.Body = io.NopCloser(r.Body) // an attempt that fails closes it, and the next one needs it
			}
			var answer *http.Response
			if answer, err = f.transport.RoundTrip(&out); err == nil && !isStarting(answer) {
				return answer, nil
			}
			// Only a request whose body has not been read is sent elsewhere: one that never left, or has none.
			elsewhere := r.Body == nil || r.Body == http.NoBody
			if err == nil {
				err = fmt.Errorf("%s is starting", address)
				_ = answer.Body.Close() // nobody reads it
			} else if op, is := errors.AsType[*net.OpError](err); is && op.Op == "dial" {
				elsewhere = true
			} else {
				return nil, err
			}
			addresses.Failed(address)
			if !elsewhere {
				return nil, err
			}
		}
		if time.Now().After(until) {
			return nil, fmt.Errorf("no replica of %s takes requests: %w", component, err)
		}
		select {
		case <-r.Context().Done():
			return nil, r.Context().Err()
		case <-time.After(wait):
		}
	}
}

// isStarting tells whether an internal listener has answered before it has endpoints. Those answer a 503 in JSON.
func isStarting(answer *http.Response) bool {
	return answer.StatusCode == http.StatusServiceUnavailable && !strings.HasPrefix(answer.Header.Get("Content-Type"), "application/json")
}

func (f *FrontDoor) failed(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil {
		return // the client has gone
	}
	if errors.Is(err, errLate) {
		WriteError(w, mxerr.NotJSON("the body could not be read: %v", errLate))
		return
	}
	component, _ := r.Context().Value(ownerKey{}).(string)
	f.log.WithError(err).WithField("component", component).Warn("a request could not be passed on")
	WriteError(w, mxerr.Unavailable("a part of this server is unavailable: try again"))
}

// buffers keeps the buffers in which answers are copied.
type buffers struct{ pool sync.Pool }

func (b *buffers) Get() []byte {
	if p, is := b.pool.Get().(*[]byte); is {
		return *p
	}
	return make([]byte, 32<<10)
}

func (b *buffers) Put(p []byte) { b.pool.Put(&p) }
