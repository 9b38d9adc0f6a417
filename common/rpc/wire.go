package rpc

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/matrix-org/dendrite/common/mxerr"
)

// What the headers of a call mean.
const (
	headerSecret  = "X-Dendrite-Secret"
	headerTimeout = "X-Dendrite-Timeout" // milliseconds left
	headerError   = "X-Dendrite-Error"   // on an answer whose body is a wireError
)

// Kinds of a wireError.
const (
	kindMatrix      = "matrix"
	kindUnavailable = "unavailable"
	kindDeadline    = "deadline"
	kindInternal    = "internal"
)

// wireError is an error on its way between processes.
type wireError struct {
	Kind    string            `json:"kind"`
	Message string            `json:"message"`
	Status  int               `json:"status,omitempty"`
	Code    string            `json:"code,omitempty"`
	Fields  map[string]any    `json:"fields,omitempty"`
	Header  map[string]string `json:"header,omitempty"`
}

// Error is a failure of a call that is neither of the caller's making nor known to pass: what went wrong is in the log of the
// component that was called.
type Error struct {
	Operation string
	Message   string
}

func (e *Error) Error() string { return e.Operation + ": " + e.Message }

// remote keeps a message for a sentinel error that crossed a process border.
type remote struct {
	message string
	kind    error
}

func (e *remote) Error() string { return e.message }
func (e *remote) Unwrap() error { return e.kind }

func toWire(err error) *wireError {
	if e, is := mxerr.As(err); is {
		return &wireError{Kind: kindMatrix, Message: e.Message, Status: e.Status, Code: e.Code, Fields: e.Fields, Header: e.Header}
	}
	kind := kindInternal
	switch {
	case errors.Is(err, mxerr.ErrUnavailable):
		kind = kindUnavailable
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		kind = kindDeadline
	}
	return &wireError{Kind: kind, Message: err.Error()}
}

func (w *wireError) err(operation string) error {
	switch w.Kind {
	case kindMatrix:
		return &mxerr.Error{Status: w.Status, Code: w.Code, Message: w.Message, Fields: w.Fields, Header: w.Header}
	case kindUnavailable:
		return &remote{operation + ": " + w.Message, mxerr.ErrUnavailable}
	case kindDeadline:
		return &remote{operation + ": " + w.Message, context.DeadlineExceeded}
	}
	return &Error{Operation: operation, Message: w.Message}
}

// encode writes JSON as it is: embedded documents keep their bytes, and nothing is escaped for HTML.
func encode(into *bytes.Buffer, v any) error {
	e := json.NewEncoder(into)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

func decode(data []byte, v any) error {
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("decode: %w", err)
	}
	return nil
}

// decodeError keeps numbers as they were written: fields of an error may be integers beyond the precision of a float.
func decodeError(data []byte) (*wireError, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	w := new(wireError)
	return w, d.Decode(w)
}
