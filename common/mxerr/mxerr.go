// Package mxerr is the closed set of errors that a client or a remote server may see: a Matrix errcode, an HTTP status, and a
// sentence that says what to do (Client-Server API, § Standard error response). An error of this type is made once, where a
// failure becomes an answer; it crosses rpc unchanged; every other error is answered as M_UNKNOWN, with
// status 503 for ErrUnavailable, else 500.
package mxerr

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// Error is an answer to a request that failed.
type Error struct {
	Status  int    // HTTP status
	Code    string // errcode, such as M_FORBIDDEN
	Message string // what is wrong and what to do
	// Fields are further members of the error's body, such as soft_logout, room_version, or the body of a 401 of
	// user-interactive authentication.
	Fields map[string]any
	// Header are HTTP headers of the answer, such as Retry-After.
	Header map[string]string
}

// Error gives the errcode and the sentence.
func (e *Error) Error() string { return e.Code + ": " + e.Message }

// With returns a copy that has one more field in its body.
func (e *Error) With(name string, value any) *Error {
	c := *e
	c.Fields = make(map[string]any, len(e.Fields)+1)
	for k, v := range e.Fields {
		c.Fields[k] = v
	}
	c.Fields[name] = value
	return &c
}

// MarshalJSON writes the body of the answer.
func (e *Error) MarshalJSON() ([]byte, error) {
	body := make(map[string]any, len(e.Fields)+2)
	for k, v := range e.Fields {
		body[k] = v
	}
	if e.Code != "" {
		body["errcode"] = e.Code
		body["error"] = e.Message
	}
	return json.Marshal(body)
}

// ErrUnavailable is in the chain of errors of what could not be done because a part of the server is away: a component that did not answer
// before the deadline, a database that takes no connections or whose disk is full. It may have been done all the same.
var ErrUnavailable = errors.New("a part of this server is unavailable")

// As finds the *Error in an error's chain.
func As(err error) (*Error, bool) {
	var e *Error
	ok := errors.As(err, &e)
	return e, ok
}

// Is tells whether an error's chain has an *Error with this errcode.
func Is(err error, code string) bool {
	e, ok := As(err)
	return ok && e.Code == code
}

// New makes an error of any status and errcode.
func New(status int, code, format string, args ...any) *Error {
	return &Error{Status: status, Code: code, Message: fmt.Sprintf(format, args...)}
}

// BadJSON is for a body that is JSON, but not of the form that the endpoint asks for.
func BadJSON(format string, args ...any) *Error {
	return New(http.StatusBadRequest, "M_BAD_JSON", format, args...)
}

// NotJSON is for a body that is no JSON.
func NotJSON(format string, args ...any) *Error {
	return New(http.StatusBadRequest, "M_NOT_JSON", format, args...)
}

// InvalidParam is for a parameter with a value that is not allowed.
func InvalidParam(format string, args ...any) *Error {
	return New(http.StatusBadRequest, "M_INVALID_PARAM", format, args...)
}

// MissingParam is for a parameter that is required and absent.
func MissingParam(format string, args ...any) *Error {
	return New(http.StatusBadRequest, "M_MISSING_PARAM", format, args...)
}

// Forbidden is for what this user may not do.
func Forbidden(format string, args ...any) *Error {
	return New(http.StatusForbidden, "M_FORBIDDEN", format, args...)
}

// NotFound is for what does not exist, or is not for this user to know of.
func NotFound(format string, args ...any) *Error {
	return New(http.StatusNotFound, "M_NOT_FOUND", format, args...)
}

// Unrecognized is for a path that no endpoint has.
func Unrecognized(format string, args ...any) *Error {
	return New(http.StatusNotFound, "M_UNRECOGNIZED", format, args...)
}

// TooLarge is for a body or an event beyond its limit.
func TooLarge(format string, args ...any) *Error {
	return New(http.StatusRequestEntityTooLarge, "M_TOO_LARGE", format, args...)
}

// LimitExceeded is for a caller who must wait; after is how long (Client-Server API, § Rate limiting).
func LimitExceeded(after time.Duration) *Error {
	e := New(http.StatusTooManyRequests, "M_LIMIT_EXCEEDED", "too many requests: try again in %s", after.Round(time.Millisecond))
	e.Fields = map[string]any{"retry_after_ms": after.Milliseconds()}
	e.Header = map[string]string{"Retry-After": fmt.Sprint(int64((after + time.Second - 1) / time.Second))}
	return e
}

// Locked is for users whose account is locked (Client-Server API, § Account locking).
func Locked() *Error {
	return New(http.StatusUnauthorized, "M_USER_LOCKED", "this account is locked: ask the server's administrator").With("soft_logout", true)
}

// Suspended is for what users may not do whose account is suspended (Client-Server API, § Account suspension).
func Suspended() *Error {
	return New(http.StatusForbidden, "M_USER_SUSPENDED", "this account is suspended: it can read, leave and redact its own events only")
}

// Unavailable is for a failure that passes: the caller should send the same request again.
func Unavailable(format string, args ...any) *Error {
	e := New(http.StatusServiceUnavailable, "M_UNKNOWN", format, args...)
	e.Header = map[string]string{"Retry-After": "1"}
	return e
}
