package rpc

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"github.com/gorilla/mux"
	"github.com/opentracing/opentracing-go"
	"github.com/opentracing/opentracing-go/ext"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
)

// MaxBytes limits a request and a response of a call.
const MaxBytes = 64 << 20

// Options are what Serve needs of the process.
type Options struct {
	Secret     string // what callers must know; empty refuses every call
	Tracer     opentracing.Tracer
	Registerer prometheus.Registerer
	Log        *logrus.Entry
}

// Serve puts every call of a contract at <prefix>/<name of the call>. component is the name in metrics and traces. Functions
// are looked up now: the contract must be filled.
func Serve(r *mux.Router, prefix, component string, api any, o Options) error {
	durations := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "dendrite_rpc_duration_seconds",
		Help:    "Time to answer a call of another component.",
		Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, 1, 5, 30},
	}, []string{"component", "call", "outcome"})
	if o.Registerer != nil {
		if err := o.Registerer.Register(durations); err != nil {
			already, is := errors.AsType[prometheus.AlreadyRegisteredError](err)
			if !is {
				return fmt.Errorf("rpc: %w", err)
			}
			durations = already.ExistingCollector.(*prometheus.HistogramVec)
		}
	}
	if o.Log == nil {
		o.Log = logrus.NewEntry(logrus.StandardLogger())
	}
	buffers := &sync.Pool{New: func() any { return new(bytes.Buffer) }}
	secret := sha256.Sum256([]byte(o.Secret))
	return eachCall(api, func(_ int, name string, f field) error {
		call, err := f.handler()
		if err != nil {
			return err
		}
		s := &served{operation: component + "." + name, call: call, secret: secret, locked: o.Secret == "",
			tracer: orNoop(o.Tracer), log: o.Log.WithField("call", component+"."+name), buffers: buffers,
			ok: durations.WithLabelValues(component, name, "ok"), failed: durations.WithLabelValues(component, name, "error")}
		r.Handle(prefix+"/"+name, s).Methods(http.MethodPost)
		return nil
	})
}

// Authorized tells whether a request on an internal listener carries the secret. It takes the same time whatever is given.
func Authorized(r *http.Request, secret string) bool {
	return secret != "" && matches(r, sha256.Sum256([]byte(secret)))
}

// Authorize puts the secret on a request to an internal listener.
func Authorize(r *http.Request, secret string) { r.Header.Set(headerSecret, secret) }

// Unauthorize removes the secret, so that it goes no further.
func Unauthorize(r *http.Request) { r.Header.Del(headerSecret) }

func matches(r *http.Request, secret [sha256.Size]byte) bool {
	given := sha256.Sum256([]byte(r.Header.Get(headerSecret)))
	return subtle.ConstantTimeCompare(given[:], secret[:]) == 1
}

// served is one call on an internal listener.
type served struct {
	operation  string
	call       handle
	secret     [sha256.Size]byte
	locked     bool
	tracer     opentracing.Tracer
	log        *logrus.Entry
	buffers    *sync.Pool
	ok, failed prometheus.Observer
}

func (s *served) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.locked || !matches(r, s.secret) {
		http.Error(w, "the internal_secret of the caller differs from the one of this process: give both the same", http.StatusForbidden)
		return
	}
	began := time.Now()
	ctx, cancel := r.Context(), context.CancelFunc(func() {})
	if ms, err := strconv.ParseInt(r.Header.Get(headerTimeout), 10, 64); err == nil && ms > 0 {
		ctx, cancel = context.WithTimeout(ctx, time.Duration(ms)*time.Millisecond)
	}
	defer cancel()
	// A request without a trace has no parent to find: that is not an error.
	parent, _ := s.tracer.Extract(opentracing.HTTPHeaders, opentracing.HTTPHeadersCarrier(r.Header))
	span := s.tracer.StartSpan(s.operation, ext.RPCServerOption(parent))
	ctx = opentracing.ContextWithSpan(ctx, span)

	buf := s.buffers.Get().(*bytes.Buffer)
	defer s.buffers.Put(buf)
	buf.Reset()
	err := s.run(ctx, r, buf)
	finish(span, err)
	w.Header().Set("Content-Type", "application/json")
	observer, status := s.ok, http.StatusOK
	if err != nil {
		observer, status = s.failed, http.StatusInternalServerError
		wire := toWire(err)
		if wire.Kind == kindInternal {
			s.log.WithError(err).Error("call failed")
		}
		w.Header().Set(headerError, wire.Kind)
		buf.Reset()
		if err := encode(buf, wire); err != nil {
			s.log.WithError(err).Error("the fields of an error cannot be encoded")
			buf.Reset()
		}
	}
	observer.Observe(time.Since(began).Seconds())
	w.Header().Set("Content-Length", strconv.Itoa(buf.Len()))
	w.WriteHeader(status)
	if _, err := w.Write(buf.Bytes()); err != nil {
		s.log.WithError(err).Debug("the caller is gone")
	}
}

// run calls the function and writes its response. A panic of either is an error: a connection that broke off would let the caller
// repeat the call, and panic again.
func (s *served) run(ctx context.Context, r *http.Request, into *bytes.Buffer) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	body, err := readAll(r.Body, r.ContentLength)
	if err != nil {
		return fmt.Errorf("reading the request: %w", err)
	}
	res, err := s.call(ctx, body)
	if err != nil {
		return err
	}
	if err := encode(into, res); err != nil {
		return fmt.Errorf("encoding the response: %w", err)
	}
	if into.Len() > MaxBytes {
		return fmt.Errorf("the response has %d bytes, more than %d", into.Len(), MaxBytes)
	}
	return nil
}

// readAll reads a body of a length that is known, usually.
func readAll(r io.Reader, length int64) ([]byte, error) {
	if length > MaxBytes {
		return nil, fmt.Errorf("%d bytes are more than %d", length, MaxBytes)
	}
	if length >= 0 {
		data := make([]byte, length)
		_, err := io.ReadFull(r, data)
		return data, err
	}
	data, err := io.ReadAll(io.LimitReader(r, MaxBytes+1))
	if err == nil && len(data) > MaxBytes {
		err = fmt.Errorf("more than %d bytes", MaxBytes)
	}
	return data, err
}
