// Package rpc lets a component call another through a struct of typed functions, its contract:
//
//	type RoomserverAPI struct {
//		SendEvent rpc.Call[SendEventRequest, SendEventResponse]
//		…
//	}
//
// In one process the launcher fills the struct with the local functions. Between processes Serve publishes those functions on an
// internal listener, and Dial fills the caller's struct with functions that reach it. Either way the caller sees the same: a
// deadline, the trace, and a closed set of errors cross with the call. *mxerr.Error arrives as it was; ErrUnavailable says that
// nobody was reached, or that who was reached cannot work now; everything else is an opaque internal error.
//
// A call that finds nobody is tried again elsewhere until its deadline, so every call that changes something carries a request
// key by which a repeat is known. A call inside a database transaction fails at once (common/txguard).
package rpc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"

	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/txguard"
)

// Call is one function of a contract.
type Call[Req, Res any] func(ctx context.Context, req Req) (Res, error)

// ErrUnavailable says that a component could not be reached, or cannot work at the moment. The same call may succeed later.
var ErrUnavailable = errors.New("component unavailable")

// Affine is implemented by requests that are best served where requests with the same key are.
type Affine interface{ AffinityKey() string }

// call is what Serve and Dial need of a Call of any types.
type call interface {
	serve(ctx context.Context, body []byte) (any, error)
	dial(name string, send sender) any
	local(name string) any
}

type sender func(ctx context.Context, name, affinity string, request any, response any) error

func (c Call[Req, Res]) serve(ctx context.Context, body []byte) (any, error) {
	var req Req
	if err := json.Unmarshal(body, &req); err != nil {
		return nil, mxerr.BadJSON("the rpc request is not of its type: %v", err)
	}
	return c(ctx, req)
}

func (c Call[Req, Res]) dial(name string, send sender) any {
	return Call[Req, Res](func(ctx context.Context, req Req) (Res, error) {
		var res Res
		key := ""
		if a, is := any(req).(Affine); is {
			key = a.AffinityKey()
		}
		err := send(ctx, name, key, req, &res)
		return res, err
	})
}

// local guards a function of the same process as a call to another process would be guarded.
func (c Call[Req, Res]) local(name string) any {
	if c == nil {
		return c
	}
	return Call[Req, Res](func(ctx context.Context, req Req) (Res, error) {
		if err := txguard.Check(ctx, "the call "+name); err != nil {
			var res Res
			return res, err
		}
		return c(ctx, req)
	})
}

// each walks the Call fields of a contract, given as a pointer to its struct.
func each(contract any, do func(name string, c call, set func(any)) error) error {
	v := reflect.ValueOf(contract)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
		return fmt.Errorf("%T is not a pointer to a struct of rpc calls", contract)
	}
	v = v.Elem()
	for i := range v.NumField() {
		field, name := v.Field(i), v.Type().Field(i).Name
		c, is := field.Interface().(call)
		if !is {
			return fmt.Errorf("%T.%s is not an rpc call", contract, name)
		}
		if err := do(name, c, func(f any) { field.Set(reflect.ValueOf(f)) }); err != nil {
			return fmt.Errorf("%T.%s: %w", contract, name, err)
		}
	}
	return nil
}

// Fill sets every function of a caller's contract to the local one of the same name. into and from are pointers to the same type.
func Fill(component string, into, from any) error {
	if reflect.TypeOf(into) != reflect.TypeOf(from) {
		return fmt.Errorf("cannot fill %T from %T", into, from)
	}
	source := reflect.ValueOf(from).Elem()
	return each(into, func(name string, _ call, set func(any)) error {
		local := source.FieldByName(name)
		if local.IsNil() {
			return errors.New("the component does not provide it")
		}
		set(local.Interface().(call).local(component + "." + name))
		return nil
	})
}
