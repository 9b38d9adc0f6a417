package contract

import (
	"bytes"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/tidwall/gjson"

	"github.com/matrix-org/dendrite/common/httputil"
)

// unread are members of bodies that this server has no use for, whatever they are.
var unread = map[string]string{
	"POST /_matrix/client/v3/login medium":  "a deprecated form of identifier",
	"POST /_matrix/client/v3/login address": "a deprecated form of identifier",
}

// invalid calls an operation in all ways that its description makes invalid, with what is valid otherwise, and tells how many there were.
// Each must be refused as the specification says (Client-Server API, § API Standards), and change nothing: the valid call comes after.
func (w *walk) invalid(o *operation, path, token string, body []byte) (n int) {
	w.t.Helper()
	method, template, _ := strings.Cut(o.name, " ")
	refused := func(what, method, path, token string, body []byte, status int, errcodes ...string) {
		w.t.Helper()
		n++
		got, answer := w.send(method, path, token, body)
		if got != status || !slices.Contains(errcodes, gjson.GetBytes(answer, "errcode").Str) || gjson.GetBytes(answer, "error").Str == "" {
			w.t.Errorf("%s with %s: %d %s, want %d %v", o.name, what, got, answer, status, errcodes)
		}
	}
	if o.token() == tokenAlways {
		refused("no token", method, path, "", body, http.StatusUnauthorized, "M_MISSING_TOKEN")
		if !w.guests[shape(o.name)] {
			refused("the token of a guest", method, path, w.guest, body, http.StatusForbidden, "M_GUEST_ACCESS_FORBIDDEN")
		}
		refused("an unknown token", method, path, "nobody's", body, http.StatusUnauthorized, "M_UNKNOWN_TOKEN")
	}
	refused("a method that does not exist", "PATCH", path, token, body, http.StatusMethodNotAllowed, "M_UNRECOGNIZED")
	if w.documents.request(o) != nil && body != nil {
		refused("a body that is no JSON", method, path, token, []byte(`{"a":`), http.StatusBadRequest, "M_NOT_JSON")
		refused("a body that is no object", method, path, token, []byte(`[]`), http.StatusBadRequest, "M_BAD_JSON")
		size := int(max(2*httputil.DefaultMaxBody, w.limits[shape(o.name)]+1))
		refused("a body that is too large", method, path, token, bytes.Repeat([]byte(" "), size), http.StatusRequestEntityTooLarge, "M_TOO_LARGE")
		for name, value := range w.documents.wrongTypes(o) {
			if unread[o.name+" "+name] != "" {
				continue
			}
			wrong := gjson.ParseBytes(body).Map()
			text := `{"` + name + `":` + value
			for key, other := range wrong {
				if key != name {
					text += `,"` + key + `":` + other.Raw
				}
			}
			refused(name+" of the wrong type", method, path, token, []byte(text+"}"), http.StatusBadRequest, "M_BAD_JSON", "M_INVALID_PARAM")
		}
	}
	plain, query, _ := strings.Cut(path, "?")
	for _, p := range w.documents.parameters(o) {
		name, _ := p["name"].(string)
		schema, _ := p["schema"].(object)
		format, _ := schema["format"].(string)
		switch {
		case p["in"] == "path" && (format == "mx-room-id" || format == "mx-user-id" || format == "mx-event-id"):
			segments, names := strings.Split(plain, "/"), strings.Split(template, "/")
			for i := range segments {
				if names[i] == "{"+name+"}" {
					segments[i] = "x"
				}
			}
			refused(name+" that is none", method, strings.Join(segments, "/")+"?"+query, token, body, http.StatusBadRequest, "M_INVALID_PARAM")
		case p["in"] == "query" && (schema["type"] == "integer" || schema["type"] == "boolean" || schema["enum"] != nil):
			values, err := url.ParseQuery(query)
			if err != nil {
				w.t.Fatal(err)
			}
			values.Set(name, "~")
			refused(name+" that is none", method, plain+"?"+values.Encode(), token, body, http.StatusBadRequest, "M_INVALID_PARAM")
		}
	}
	return n
}

// parameters are those of an operation.
func (d *documents) parameters(o *operation) (all []object) {
	list, _ := o.spec["parameters"].([]any)
	for _, p := range list {
		if _, resolved, err := d.resolve(o.file, p.(object)); err == nil {
			all = append(all, resolved)
		}
	}
	return all
}

// wrongTypes are values that the members of an operation's body must not have.
func (d *documents) wrongTypes(o *operation) map[string]string {
	wrong := make(map[string]string)
	file, schema, err := d.resolve(o.file, d.request(o))
	if err != nil || schema["allOf"] != nil {
		return wrong
	}
	properties, _ := schema["properties"].(object)
	for name, p := range properties {
		property, is := p.(object)
		if !is {
			continue
		}
		if _, property, err = d.resolve(file, property); err != nil {
			continue
		}
		switch property["type"] {
		case "string":
			wrong[name] = `{"a":1}`
		case "integer", "boolean", "object", "array", "number":
			wrong[name] = `"wrong"`
		}
	}
	return wrong
}
