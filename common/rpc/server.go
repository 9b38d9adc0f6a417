package rpc

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/gorilla/mux"
	"github.com/opentracing/opentracing-go"
	"github.com/opentracing/opentracing-go/ext"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"

	"github.com/matrix-org/dendrite/common/mxerr"
)

// Header names.
const (
	secretHeader   = "X-Dendrite-Secret"
	deadlineHeader = "X-Dendrite-Timeout-Ms"
)

// maxBytes limits requests and responses.
const maxBytes = 64 << 20

// ServerOptions are what Serve reports to and asks for.
type ServerOptions struct {
	Secret  string // shared by all components of a deployment
	Log     *logrus.Entry
	Tracer  opentracing.Tracer
	Seconds *prometheus.HistogramVec // labels: call, result
}

// Path is where a call is served.
func path(component, name string) string { return "/rpc/" + component + "/" + name }

// Serve publishes the functions of a component's contract.
func Serve(router *mux.Router, component string, contract any, o ServerOptions) error {
	return each(contract, func(name string, c call, _ func(any)) error {
		router.Methods(http.MethodPost).Path(path(component, name)).Handler(&handler{component + "." + name, c, o})
		return nil
	})
}

type handler struct {
	name string
	call call
	o    ServerOptions
}

// wireError is how an error crosses.
type wireError struct {
	Matrix      *wireMatrix `json:"matrix,omitempty"`
	Unavailable bool        `json:"unavailable,omitempty"`
	Message     string      `json:"message,omitempty"`
}

type wireMatrix struct {
	Status  int
	Code    string
	Message string
	Fields  map[string]any    `json:",omitempty"`
	Header  map[string]string `json:",omitempty"`
}

// ServeHTTP runs one call. The status says only whether there is a result (200), an error (422), or that the call is to be
// made elsewhere or later (503).
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	started := time.Now()
	if subtle.ConstantTimeCompare([]byte(r.Header.Get(secretHeader)), []byte(h.o.Secret)) != 1 || h.o.Secret == "" {
		http.Error(w, "the internal secret is missing or wrong: internal_secret must be the same for all components", http.StatusForbidden)
		return
	}
	ctx := r.Context()
	if ms, err := strconv.ParseInt(r.Header.Get(deadlineHeader), 10, 64); err == nil && ms > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(ms)*time.Millisecond)
		defer cancel()
	}
	if parent, err := h.o.Tracer.Extract(opentracing.HTTPHeaders, opentracing.HTTPHeadersCarrier(r.Header)); err == nil {
		span := h.o.Tracer.StartSpan(h.name, ext.RPCServerOption(parent))
		defer span.Finish()
		ctx = opentracing.ContextWithSpan(ctx, span)
	}
	result, err := h.run(ctx, http.MaxBytesReader(w, r.Body, maxBytes))
	status := http.StatusOK
	if err != nil {
		status, result = h.wire(err)
	}
	body, err := json.Marshal(result)
	if err != nil {
		h.o.Log.WithError(err).WithField("call", h.name).Error("rpc result cannot be written")
		status, body = http.StatusUnprocessableEntity, []byte(`{"message":"the result cannot be written"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	if _, err := w.Write(body); err != nil {
		h.o.Log.WithError(err).WithField("call", h.name).Debug("rpc caller is gone")
	}
	if h.o.Seconds != nil {
		h.o.Seconds.WithLabelValues(h.name, strconv.Itoa(status)).Observe(time.Since(started).Seconds())
	}
}

func (h *handler) run(ctx context.Context, body io.Reader) (result any, err error) {
	defer func() {
		if p := recover(); p != nil {
			h.o.Log.WithField("call", h.name).WithField("stack", string(debug.Stack())).Errorf("panic: %v", p)
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	raw, err := io.ReadAll(body)
	if err != nil {
		return nil, fmt.Errorf("read rpc request: %w", err)
	}
	return h.call.serve(ctx, raw)
}

func (h *handler) wire(err error) (int, wireError) {
	if m, is := mxerr.As(err); is {
		return http.StatusUnprocessableEntity, wireError{Matrix: &wireMatrix{m.Status, m.Code, m.Message, m.Fields, m.Header}}
	}
	if errors.Is(err, ErrUnavailable) || errors.Is(err, context.Canceled) {
		return http.StatusServiceUnavailable, wireError{Unavailable: true, Message: err.Error()}
	}
	return http.StatusUnprocessableEntity, wireError{Message: err.Error()}
}

func (e *wireError) error(name string) error {
	switch {
	case e.Matrix != nil:
		return &mxerr.Error{Status: e.Matrix.Status, Code: e.Matrix.Code, Message: e.Matrix.Message, Fields: e.Matrix.Fields, Header: e.Matrix.Header}
	case e.Unavailable:
		return fmt.Errorf("%s: %w: %s", name, ErrUnavailable, e.Message)
	}
	return fmt.Errorf("%s: %s", name, e.Message)
}
