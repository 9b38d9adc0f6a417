package httputil

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/opentracing/opentracing-go"
	"github.com/opentracing/opentracing-go/ext"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"

	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/registration"
)

// RouterDeps are what a Router uses for all its routes. Auth may be nil where no route asks for a caller.
type RouterDeps struct {
	Auth   Authenticator
	Limits Limiter
	// Services tells whose the token is that comes to an endpoint which asks nobody who they are. It may be nil.
	Services *registration.Holder
	// Proxies are those whose word counts for where a request came from.
	Proxies Proxies
	Log     *logrus.Entry
	Tracer  opentracing.Tracer
	Metrics prometheus.Registerer
	Answers AnswerBudget // zero: the default
}

// Router serves routes.
type Router struct {
	deps    RouterDeps
	root    node
	seconds *prometheus.HistogramVec
	answers *answers
	other   http.Handler
	// stranger warns of a proxy that the configuration does not name, once.
	stranger sync.Once
}

type node struct {
	literal map[string]*node
	param   *node
	end     map[string]*leaf // by method
}

type leaf struct {
	route Route
	names []string
}

// NewRouter makes a Router. It fails where two routes cannot be told apart.
func NewRouter(routes []Route, deps RouterDeps) (*Router, error) {
	if deps.Tracer == nil {
		deps.Tracer = opentracing.NoopTracer{}
	}
	if deps.Log == nil {
		deps.Log = logrus.NewEntry(logrus.StandardLogger())
	}
	if deps.Answers == (AnswerBudget{}) {
		deps.Answers = DefaultAnswerBudget()
	}
	r := &Router{deps: deps, answers: newAnswers(deps.Answers), seconds: prometheus.NewHistogramVec(
		prometheus.HistogramOpts{Name: "dendrite_http_seconds", Help: "Time of public requests by endpoint.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 4, 9)}, []string{"endpoint", "code"})}
	if deps.Metrics != nil {
		if err := deps.Metrics.Register(r.seconds); err != nil {
			return nil, fmt.Errorf("metrics of the router: %w", err)
		}
	}
	for _, route := range routes {
		if err := r.root.add(strings.Split(strings.TrimPrefix(route.Path, "/"), "/"), &leaf{route: route}); err != nil {
			return nil, fmt.Errorf("%s %s: %w", route.Method, route.Path, err)
		}
	}
	return r, nil
}

// Otherwise serves paths that no route has.
func (r *Router) Otherwise(h http.Handler) { r.other = h }

func (n *node) add(segments []string, l *leaf) error {
	if len(segments) == 0 {
		if n.end == nil {
			n.end = make(map[string]*leaf)
		}
		if _, twice := n.end[l.route.Method]; twice {
			return fmt.Errorf("there are two routes")
		}
		n.end[l.route.Method] = l
		return nil
	}
	segment, rest := segments[0], segments[1:]
	inner, braced := strings.CutPrefix(segment, "{")
	inner = strings.TrimSuffix(inner, "}")
	if braced && strings.Contains(inner, "|") {
		for _, choice := range strings.Split(inner, "|") {
			if err := n.add(append([]string{choice}, rest...), &leaf{l.route, l.names}); err != nil {
				return err
			}
		}
		return nil
	}
	if braced {
		if len(l.names) == len(Request{}.vars) {
			return fmt.Errorf("a path has more than %d variables", len(l.names))
		}
		if n.param == nil {
			n.param = new(node)
		}
		l.names = append(l.names[:len(l.names):len(l.names)], inner)
		return n.param.add(rest, l)
	}
	if n.literal == nil {
		n.literal = make(map[string]*node)
	}
	if n.literal[segment] == nil {
		n.literal[segment] = new(node)
	}
	return n.literal[segment].add(rest, l)
}

// find walks an escaped path. A literal wins over a variable; where it leads nowhere, the variable is tried.
func (n *node) find(path string, vars *[4]string, depth int) *node {
	if path == "" {
		if n.end != nil {
			return n
		}
		return nil
	}
	segment, rest, ok := next(path)
	if !ok {
		return nil
	}
	if literal := n.literal[segment]; literal != nil {
		if found := literal.find(rest, vars, depth); found != nil {
			return found
		}
	}
	if n.param == nil || depth == len(vars) {
		return nil
	}
	vars[depth] = segment
	return n.param.find(rest, vars, depth+1)
}

// next splits the first segment off an escaped path and decodes it, so that an escaped slash is part of its segment.
func next(path string) (segment, rest string, ok bool) {
	segment, _, more := strings.Cut(path[1:], "/")
	if more {
		rest = path[1+len(segment):]
	}
	segment, err := url.PathUnescape(segment)
	return segment, rest, err == nil
}

// ServeHTTP serves a request.
func (r *Router) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if client, err := r.deps.Proxies.Client(req); err == nil {
		r.warn(client, req)
		req.RemoteAddr = client.String()
	}
	req.Header.Del(headerForwarded)
	r.serveHTTP(w, req, r.other)
}

// warn says that all clients of a proxy share one limit, because it is not known as one.
func (r *Router) warn(client netip.Addr, req *http.Request) {
	if (client.IsPrivate() || client.IsLoopback()) && !r.deps.Proxies.trusts(client) &&
		req.Header.Get(headerForwarded) != "" {
		r.stranger.Do(func() {
			r.deps.Log.WithField("address", client).
				Warn("X-Forwarded-For of an address that trusted_proxies does not have: if this is your reverse " +
					"proxy, add it, or its clients are limited as if they were one")
		})
	}
}

// Local serves only what has a route, as for requests that another process passed on: who that is must be known already, because
// its word counts for where the request came from.
func (r *Router) Local() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if client := req.Header.Get(headerForwarded); client != "" {
			req.RemoteAddr = client
			req.Header.Del(headerForwarded)
		}
		r.serveHTTP(w, req, nil)
	})
}

func (r *Router) serveHTTP(w http.ResponseWriter, req *http.Request, other http.Handler) {
	cors(w.Header())
	if req.Method == http.MethodOptions {
		w.WriteHeader(http.StatusOK)
		return
	}
	q := &Request{Request: req, answers: r.answers}
	found := r.root.find(req.URL.EscapedPath(), &q.vars, 0)
	if found == nil && other != nil {
		other.ServeHTTP(w, req)
		return
	}
	if found == nil {
		r.fail(w, req, "unknown", mxerr.Unrecognized("there is no endpoint %s", req.URL.Path))
		return
	}
	l := found.end[req.Method]
	if l == nil && req.Method == http.MethodHead {
		l = found.end[http.MethodGet]
	}
	if l == nil {
		for method := range found.end {
			w.Header().Add("Allow", method)
		}
		r.fail(w, req, "unknown", mxerr.New(http.StatusMethodNotAllowed, "M_UNRECOGNIZED", "%s is not a method of %s", req.Method, req.URL.Path))
		return
	}
	q.route, q.names, q.limit = &l.route, l.names, l.route.MaxBody
	if q.limit == 0 {
		q.limit = DefaultMaxBody
	}
	started := time.Now()
	code := r.serve(w, q)
	took := time.Since(started)
	r.seconds.WithLabelValues(l.route.Name, codeClass(code)).Observe(took.Seconds())
	if r.deps.Log.Logger.IsLevelEnabled(logrus.DebugLevel) {
		r.deps.Log.WithFields(logrus.Fields{"endpoint": l.route.Name, "method": req.Method, "code": code, "user": q.Caller.UserID,
			"took": took, "address": ClientAddress(req)}).Debug("request")
	}
}

func (r *Router) serve(w http.ResponseWriter, q *Request) (code int) {
	span, ctx := r.span(q)
	defer span.Finish()
	defer func() {
		if p := recover(); p != nil {
			r.deps.Log.WithFields(logrus.Fields{"endpoint": q.route.Name, "stack": string(debug.Stack())}).Errorf("panic: %v", p)
			code = r.fail(w, q.Request, q.route.Name, mxerr.New(http.StatusInternalServerError, "M_UNKNOWN", "internal server error"))
		}
		ext.HTTPStatusCode.Set(span, uint16(code))
	}()
	q.Request = q.WithContext(ctx)
	if !q.isText() {
		return r.fail(w, q.Request, q.route.Name, mxerr.InvalidParam("the path and the query must be UTF-8 without NULs"))
	}
	if q.ContentLength > q.limit {
		return r.fail(w, q.Request, q.route.Name, mxerr.TooLarge("the body may have %d bytes", q.limit))
	}
	if err := r.admit(ctx, q); err != nil {
		return r.fail(w, q.Request, q.route.Name, err)
	}
	defer q.hold(0)
	if q.route.Large {
		if err := q.Reserve(LargeAnswer); err != nil {
			return r.fail(w, q.Request, q.route.Name, err)
		}
	}
	result, err := q.route.Handler(ctx, q)
	if err != nil {
		return r.fail(w, q.Request, q.route.Name, err)
	}
	return r.write(w, q, result)
}

// admit authenticates and applies the rate limit: by user where one is known, by address where not.
func (r *Router) admit(ctx context.Context, q *Request) error {
	if q.route.Auth == AuthNone {
		q.Service = r.deps.Services.Load().ByToken(token(q.Request))
	} else {
		t := token(q.Request)
		switch {
		case t == "" && q.route.Auth == AuthOptional:
		case t == "":
			return mxerr.New(http.StatusUnauthorized, "M_MISSING_TOKEN", "this endpoint needs an access token: send it as Authorization: Bearer TOKEN")
		default:
			caller, err := r.deps.Auth.Authenticate(ctx, t, q.Request)
			if err != nil {
				return err
			}
			if caller.Locked && !q.route.Locked {
				return mxerr.Locked()
			}
			if caller.Suspended && q.route.suspends() {
				return mxerr.Suspended()
			}
			if caller.Guest && q.route.Auth == AuthUser {
				return mxerr.New(http.StatusForbidden, "M_GUEST_ACCESS_FORBIDDEN", "guests may not use this endpoint: register an account")
			}
			q.Caller = caller
		}
	}
	if q.route.Limit == "" || r.deps.Limits == nil || q.Caller.Unlimited || q.Service != nil && !q.Service.RateLimited {
		return nil
	}
	return r.deps.Limits.Allow(q.route.Limit, q.payer())
}

func (r *Router) span(q *Request) (opentracing.Span, context.Context) {
	var options []opentracing.StartSpanOption
	if parent, err := r.deps.Tracer.Extract(opentracing.HTTPHeaders, opentracing.HTTPHeadersCarrier(q.Header)); err == nil {
		options = append(options, ext.RPCServerOption(parent))
	}
	span := r.deps.Tracer.StartSpan(q.route.Name, options...)
	ext.HTTPMethod.Set(span, q.Method)
	return span, opentracing.ContextWithSpan(q.Context(), span)
}

// corsHeader is what § Web Browser Clients asks of every answer.
var corsHeader = map[string]string{
	"Access-Control-Allow-Origin":  "*",
	"Access-Control-Allow-Methods": "GET, POST, PUT, DELETE, OPTIONS",
	"Access-Control-Allow-Headers": "X-Requested-With, Content-Type, Authorization",
}

func cors(h http.Header) {
	for name, value := range corsHeader {
		h.Set(name, value)
	}
}

func codeClass(code int) string {
	return [...]string{"", "1xx", "2xx", "3xx", "4xx", "5xx"}[min(max(code/100, 1), 5)]
}
