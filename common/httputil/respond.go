package httputil

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"

	"github.com/sirupsen/logrus"

	"github.com/matrix-org/dendrite/common/mxerr"
)

// Marshal writes JSON as Matrix likes it: without escapes for HTML. The members of an Object that are json.RawMessage are JSON
// already, and copied as they are.
func Marshal(v any) ([]byte, error) {
	return marshal(v, func(size int) []byte { return make([]byte, 0, size) })
}

// marshal is Marshal into room of its own.
func marshal(v any, room func(size int) []byte) ([]byte, error) {
	switch v := v.(type) {
	case json.RawMessage:
		return v, nil
	case Object:
		return marshalObject(v, room)
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimRight(b.Bytes(), "\n"), nil
}

func marshalObject(o Object, room func(size int) []byte) ([]byte, error) {
	names, size := make([]string, 0, len(o)), 2
	for name, value := range o {
		raw, _ := value.(json.RawMessage)
		names, size = append(names, name), size+len(name)+len(raw)+32
	}
	slices.Sort(names)
	out := append(room(size), '{')
	for i, name := range names {
		if i > 0 {
			out = append(out, ',')
		}
		key, err := Marshal(name)
		if err != nil {
			return nil, err
		}
		value, err := Marshal(o[name])
		if err != nil {
			return nil, err
		}
		if len(value) == 0 {
			value = []byte("null")
		}
		out = append(append(append(out, key...), ':'), value...)
	}
	return append(out, '}'), nil
}

func (r *Router) write(w http.ResponseWriter, q *Request, result any) int {
	if stream, is := result.(Stream); is {
		if err := stream(w); err != nil {
			r.deps.Log.WithError(err).WithField("endpoint", q.route.Name).Debug("answer broke off")
			return http.StatusOK // with what is lent: over HTTP/2 the server may still be reading it
		}
		q.takeBack()
		return http.StatusOK
	}
	answer, is := result.(Raw)
	if !is {
		switch v := result.(type) {
		case nil:
			answer.Body = Empty
		default:
			body, err := marshal(v, q.Lend)
			if err != nil {
				return r.fail(w, q.Request, q.route.Name, err)
			}
			answer.Body = body
		}
	}
	if answer.Status == 0 {
		answer.Status = http.StatusOK
	}
	if answer.ContentType == "" {
		answer.ContentType = "application/json"
	}
	q.hold(q.size(answer.Body))
	w.Header().Set("Content-Type", answer.ContentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(answer.Body)))
	w.WriteHeader(answer.Status)
	if q.Method != http.MethodHead {
		if _, err := w.Write(answer.Body); err != nil {
			r.deps.Log.WithError(err).WithField("endpoint", q.route.Name).Debug("client is gone")
			if _, copies := w.(*streamWriter); !copies && q.ProtoMajor == 2 {
				return answer.Status // and what is lent as well: the server may still be reading it
			}
		}
	}
	q.takeBack()
	return answer.Status
}

// fail writes an error. What is no *mxerr.Error is logged here, once, and told to nobody.
func (r *Router) fail(w http.ResponseWriter, req *http.Request, endpoint string, err error) int {
	m, is := mxerr.As(err)
	if !is {
		fields := logrus.Fields{"endpoint": endpoint, "method": req.Method}
		switch {
		case req.Context().Err() != nil:
			return 499 // the client has gone; nobody reads an answer
		case errors.Is(err, mxerr.ErrUnavailable), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
			r.deps.Log.WithError(err).WithFields(fields).Warn("a component is unavailable")
			m = mxerr.Unavailable("a part of this server is unavailable: try again")
		default:
			r.deps.Log.WithError(err).WithFields(fields).Error("request failed")
			m = mxerr.New(http.StatusInternalServerError, "M_UNKNOWN", "internal server error: the server's log says more")
		}
	}
	WriteError(w, m)
	return m.Status
}

// WriteError writes an error outside a Router.
func WriteError(w http.ResponseWriter, m *mxerr.Error) {
	body, err := Marshal(m)
	if err != nil {
		body = []byte(`{"errcode":"M_UNKNOWN","error":"internal server error"}`)
	}
	for name, value := range m.Header {
		w.Header().Set(name, value)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(m.Status)
	_, _ = w.Write(body) // a client that is gone needs no answer
}
