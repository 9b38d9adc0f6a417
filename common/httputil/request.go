package httputil

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/rawjson"
	"github.com/matrix-org/dendrite/common/registration"
)

// MaxDepth is how deep the JSON of a request may be nested.
const MaxDepth = 100

// Request is a request whose route, caller and limits are settled.
type Request struct {
	*http.Request
	Caller Caller
	// Service is the application service whose token came to an endpoint that asks nobody who they are; nil: none.
	Service *registration.Registration
	route   *Route
	vars    [4]string
	names   []string
	query   url.Values
	limit   int64
	lent    []*[]byte
	// answers counts what the request holds of its answer; nil: nobody does.
	answers *answers
	held    int64 // bytes
}

// bodyAtOnce is for how many bytes of a body there is room before they come.
const bodyAtOnce = 256 << 10

// bodyTimeout is how long a client may take to send a body that is read whole.
const bodyTimeout = time.Minute

// NewRequest makes a Request of a handler's test.
func NewRequest(r *http.Request, caller Caller, vars map[string]string) *Request {
	q := &Request{Request: r, Caller: caller, limit: DefaultMaxBody}
	for name, value := range vars {
		q.vars[len(q.names)] = value
		q.names = append(q.names, name)
	}
	return q
}

// Var is a variable of the path, percent-decoded.
func (r *Request) Var(name string) string {
	for i, n := range r.names {
		if n == name {
			return r.vars[i]
		}
	}
	return ""
}

// RoomID is a variable of the path that must be a room id.
func (r *Request) RoomID(name string) (id.RoomID, error) {
	room, err := id.ParseRoomID(r.Var(name))
	if err != nil {
		return "", mxerr.InvalidParam("%v", err)
	}
	return room, nil
}

// UserID is a variable of the path that must be a user id.
func (r *Request) UserID(name string) (id.UserID, error) {
	user, err := id.ParseUserID(r.Var(name))
	if err != nil {
		return "", mxerr.InvalidParam("%v", err)
	}
	return user, nil
}

// EventID is a variable of the path that must be an event id.
func (r *Request) EventID(name string) (id.EventID, error) {
	event, err := id.ParseEventID(r.Var(name))
	if err != nil {
		return "", mxerr.InvalidParam("%v", err)
	}
	return event, nil
}

// Query is the first value of a parameter of the query, or nothing.
func (r *Request) Query(name string) string { return r.Values().Get(name) }

// Values are all parameters of the query.
func (r *Request) Values() url.Values {
	if r.query == nil {
		r.query = r.URL.Query()
	}
	return r.query
}

// isText tells whether path and query are text: databases and JSON take nothing else.
func (r *Request) isText() bool {
	if !isText(r.vars[:len(r.names)]...) {
		return false
	}
	if !strings.Contains(r.URL.RawQuery, "%") { // nothing is escaped, and a NUL must be
		return utf8.ValidString(r.URL.RawQuery)
	}
	for name, values := range r.Values() {
		if !isText(name) || !isText(values...) {
			return false
		}
	}
	return true
}

func isText(all ...string) bool {
	for _, s := range all {
		if !utf8.ValidString(s) || strings.ContainsRune(s, 0) {
			return false
		}
	}
	return true
}

// QueryInt is a parameter that must be a number of at least 0; fallback if it is not given.
func (r *Request) QueryInt(name string, fallback int) (int, error) {
	s := r.Query(name)
	if s == "" {
		return fallback, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 {
		return 0, mxerr.InvalidParam("%s must be a number of at least 0, not %q", name, s)
	}
	return n, nil
}

// QueryBool is a parameter that must be true or false; false if it is not given.
func (r *Request) QueryBool(name string) (bool, error) {
	switch s := r.Query(name); s {
	case "", "false":
		return false, nil
	case "true":
		return true, nil
	default:
		return false, mxerr.InvalidParam("%s must be true or false, not %q", name, s)
	}
}

// QueryMillis is a duration given in milliseconds, no longer than limit.
func (r *Request) QueryMillis(name string, limit time.Duration) (time.Duration, error) {
	n, err := r.QueryInt(name, 0)
	return min(time.Duration(min(n, int(limit/time.Millisecond)))*time.Millisecond, limit), err
}

// Bytes reads the body, as far as the limit of the route allows. M_TOO_LARGE beyond.
func (r *Request) Bytes() ([]byte, error) {
	if paced, is := r.Body.(*pacedBody); is {
		paced.within(bodyTimeout)
	}
	in := io.LimitReader(r.Body, r.limit+1)
	// What is announced has its room at once, up to a bound: it may never come.
	var buffer bytes.Buffer
	buffer.Grow(int(min(max(r.ContentLength, 0), r.limit, bodyAtOnce)) + bytes.MinRead)
	if _, err := buffer.ReadFrom(in); err != nil {
		return nil, mxerr.NotJSON("the body could not be read: %v", err)
	}
	body := buffer.Bytes()
	if int64(len(body)) > r.limit {
		return nil, mxerr.TooLarge("the body may have %d bytes", r.limit)
	}
	return body, nil
}

// Members calls visit for each member of a part of a body that must be an object, as they come: of those with the same name the last
// one counts. Values are parts of the body. M_BAD_JSON says what is no object.
func Members(what string, raw json.RawMessage, visit func(name string, value json.RawMessage) error) error {
	isObject, err := rawjson.Members(raw, visit)
	if err == nil && !isObject {
		return mxerr.BadJSON("%s must be an object", what)
	}
	return err
}

// Member is a member of a part of a body that must be an object, as Members gives it; nil if there is none.
func Member(what string, raw json.RawMessage, wanted string) (value json.RawMessage, err error) {
	err = Members(what, raw, func(name string, v json.RawMessage) error {
		if name == wanted {
			value = v
		}
		return nil
	})
	return value, err
}

// Object reads the body, which must be a JSON object. An empty body counts as an empty object: clients send it where nothing is
// required.
func (r *Request) Object() (json.RawMessage, error) {
	body, err := r.object()
	if err == nil && len(body) == 0 {
		return Empty, nil
	}
	return body, err
}

// Content is Object for what is kept as it is: there must be a body.
func (r *Request) Content() (json.RawMessage, error) {
	body, err := r.object()
	if err == nil && len(body) == 0 {
		return nil, mxerr.NotJSON("there is no body: send a JSON object, if only {}")
	}
	return body, err
}

// object reads the body, which must be a JSON object or empty.
func (r *Request) object() (json.RawMessage, error) {
	body, err := r.Bytes()
	if err != nil {
		return nil, err
	}
	body = bytes.TrimSpace(body)
	if len(body) == 0 {
		return nil, nil
	}
	if err := checkJSON(body); err != nil {
		return nil, err
	}
	if body[0] != '{' {
		return nil, mxerr.BadJSON("the body must be a JSON object")
	}
	return body, nil
}

// JSON reads the body, a JSON object, into a struct. M_NOT_JSON for what is no JSON, M_BAD_JSON for what has another form.
func (r *Request) JSON(into any) error {
	body, err := r.Object()
	if err != nil {
		return err
	}
	return Unmarshal(body, into)
}

// Unmarshal reads JSON that is known to be JSON into a struct. M_BAD_JSON names the field that has a wrong type.
func Unmarshal(body []byte, into any) error {
	err := json.Unmarshal(body, into)
	var wrongType *json.UnmarshalTypeError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &wrongType) && wrongType.Field != "":
		return mxerr.BadJSON("%s must be of type %s, not %s", wrongType.Field, typeName(wrongType), wrongType.Value)
	}
	return mxerr.BadJSON("the body has not the form that this endpoint asks for: %v", err)
}

func typeName(e *json.UnmarshalTypeError) string {
	switch name := e.Type.Kind().String(); name {
	case "slice", "array":
		return "array"
	case "struct", "map":
		return "object"
	case "bool":
		return "boolean"
	case "string":
		return name
	default:
		return "integer"
	}
}

func checkJSON(body []byte) error {
	if !utf8.Valid(body) {
		return mxerr.NotJSON("the body is not valid UTF-8")
	}
	switch err := rawjson.Check(body, MaxDepth); {
	case errors.Is(err, rawjson.ErrDepth):
		return mxerr.BadJSON("the body is nested more than %d deep", MaxDepth)
	case err != nil:
		return mxerr.NotJSON("the body is not JSON")
	}
	return nil
}

// HasToken tells whether a request came with an access token, whoever's it is.
func (r *Request) HasToken() bool { return token(r.Request) != "" }

// token is the access token of a request: in its header, or, as it was done before, in its query (§ Using access tokens).
func token(r *http.Request) string {
	if scheme, bearer, has := strings.Cut(r.Header.Get("Authorization"), " "); has && strings.EqualFold(scheme, "Bearer") {
		return strings.TrimSpace(bearer)
	}
	if !strings.Contains(r.URL.RawQuery, "access_token=") {
		return ""
	}
	return r.URL.Query().Get("access_token")
}
