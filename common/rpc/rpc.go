// Package rpc carries calls between components, whether they share a process or not.
//
// A contract is a struct whose fields are Calls. The component that implements it fills the struct with its own functions;
// Serve puts such a struct on an internal listener, Dial fills another process's copy with functions that send the request
// there, and Local fills the copy of a component in the same process. There are no stubs to write, and no component can tell
// the difference.
//
// What crosses: the request and response as JSON, the deadline, the trace context, and a closed set of errors: *mxerr.Error
// unchanged, mxerr.ErrUnavailable, context.DeadlineExceeded, and everything else as an opaque internal error with its message.
//
// A call whose peer cannot be reached, is starting or stopping, or dies before it has answered to the end, is repeated with
// backoff, at every address in turn, until its deadline. It may thus be carried out twice: every call that changes something must carry a request key by which
// its owner finds the first result. Memory that a request or response points to is shared within one process: whoever gets it
// only reads it.
//
// A call inside a database transaction fails at once (common/txguard).
package rpc

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/opentracing/opentracing-go"

	"github.com/matrix-org/dendrite/common/txguard"
)

// Call is one function of a contract.
type Call[Req, Res any] func(ctx context.Context, req Req) (Res, error)

// DefaultTimeout ends a call whose context has no deadline.
const DefaultTimeout = 30 * time.Second

// affine is a request that is best served by the same replica as others with its key, for the sake of that replica's caches.
// An empty key means that any replica does.
type affine interface{ AffinityKey() string }

// field is what a *Call can do, whatever its types.
type field interface {
	dial(do roundTrip)
	local(source any, check guard) error
	handler() (handle, error)
}

type (
	// roundTrip sends a request and decodes the response into res.
	roundTrip func(ctx context.Context, req, res any) error
	// handle decodes a request, calls the function, and returns its response.
	handle func(ctx context.Context, body []byte) (any, error)
	// guard runs before a local call; end is called after it.
	guard func(ctx context.Context) (inner context.Context, end func(error), err error)
)

func (c *Call[Req, Res]) dial(do roundTrip) {
	*c = func(ctx context.Context, req Req) (Res, error) {
		var res Res
		if err := do(ctx, req, &res); err != nil {
			var none Res
			return none, err
		}
		return res, nil
	}
}

func (c *Call[Req, Res]) local(source any, check guard) error {
	from, same := source.(*Call[Req, Res])
	if !same {
		return fmt.Errorf("is filled from a %T", source)
	}
	call := *from
	if call == nil {
		return errors.New("is nil")
	}
	*c = func(ctx context.Context, req Req) (Res, error) {
		ctx, end, err := check(ctx)
		if err != nil {
			var none Res
			return none, err
		}
		res, err := call(ctx, req)
		end(err)
		return res, err
	}
	return nil
}

func (c *Call[Req, Res]) handler() (handle, error) {
	call := *c
	if call == nil {
		return nil, errors.New("is nil")
	}
	return func(ctx context.Context, body []byte) (any, error) {
		var req Req
		if err := decode(body, &req); err != nil {
			return nil, fmt.Errorf("request is not a %T: %w", req, err)
		}
		return call(ctx, req)
	}, nil
}

// Local fills the contract that peer points to with the functions of another of the same type, in the same process.
func Local(component string, tracer opentracing.Tracer, functions, peer any) error {
	if reflect.TypeOf(functions) != reflect.TypeOf(peer) {
		return fmt.Errorf("rpc: a %T cannot be filled from a %T", peer, functions)
	}
	from := reflect.ValueOf(functions).Elem()
	return eachCall(peer, func(i int, name string, f field) error {
		operation := component + "." + name
		return f.local(from.Field(i).Addr().Interface(), func(ctx context.Context) (context.Context, func(error), error) {
			if err := txguard.Check(ctx, "the call "+operation); err != nil {
				return nil, nil, err
			}
			if opentracing.SpanFromContext(ctx) == nil {
				return ctx, func(error) {}, nil
			}
			span, ctx := opentracing.StartSpanFromContextWithTracer(ctx, orNoop(tracer), operation)
			return ctx, func(err error) { finish(span, err) }, nil
		})
	})
}

// eachCall walks over the fields of a contract, which must all be Calls.
func eachCall(api any, visit func(index int, name string, f field) error) error {
	v := reflect.ValueOf(api)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
		return fmt.Errorf("rpc: a contract is a pointer to a struct of Calls, not a %T", api)
	}
	for i := range v.Elem().NumField() {
		name := v.Elem().Type().Field(i).Name
		f, is := v.Elem().Field(i).Addr().Interface().(field)
		if !is {
			return fmt.Errorf("rpc: %T.%s is no Call", api, name)
		}
		if err := visit(i, name, f); err != nil {
			return fmt.Errorf("rpc: %T.%s %w", api, name, err)
		}
	}
	return nil
}

func orNoop(t opentracing.Tracer) opentracing.Tracer {
	if t == nil {
		return opentracing.NoopTracer{}
	}
	return t
}

func finish(span opentracing.Span, err error) {
	if err != nil {
		span.SetTag("error", true)
		span.SetTag("message", err.Error())
	}
	span.Finish()
}
