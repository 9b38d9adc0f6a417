package contract

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v2"
)

// object is JSON or YAML.
type object = map[string]any

// operation is an endpoint of the specification.
type operation struct {
	name string // method and path
	file string // what references are relative to
	spec object
}

// documents are the files of the specification, read once.
type documents struct {
	dir  string
	read map[string]object
}

// specification reads the endpoints for clients, by method and path with the names of variables left out.
func specification(t *testing.T) (*documents, map[string]*operation) {
	t.Helper()
	return specificationOf(t, "client-server/*.yaml", "server-server/wellknown.yaml")
}

// specificationOf reads the endpoints that some files have.
func specificationOf(t *testing.T, patterns ...string) (*documents, map[string]*operation) {
	t.Helper()
	dir := os.Getenv("MATRIX_SPEC_DIR")
	if dir == "" {
		dir = "../../../shared/matrix-spec"
	}
	if _, err := os.Stat(filepath.Join(dir, "data/api")); err != nil {
		t.Skipf("there is no specification to compare with: set MATRIX_SPEC_DIR to a checkout of matrix-spec (%v)", err)
	}
	d := &documents{dir: dir, read: make(map[string]object)}
	var files []string
	for _, pattern := range patterns {
		found, err := filepath.Glob(filepath.Join(dir, "data/api", pattern))
		if err != nil || len(found) == 0 {
			t.Fatalf("%s: %d files, %v", pattern, len(found), err)
		}
		files = append(files, found...)
	}
	all := make(map[string]*operation)
	for _, file := range files {
		document, err := d.load(file)
		if err != nil {
			t.Fatal(err)
		}
		base := ""
		if servers, _ := document["servers"].([]any); len(servers) > 0 {
			server, _ := servers[0].(object)
			base, _ = dig(server, "variables", "basePath", "default").(string)
		}
		paths, _ := document["paths"].(object)
		for path, methods := range paths {
			for method, spec := range methods.(object) {
				o := &operation{name: strings.ToUpper(method) + " " + base + strings.TrimSpace(path), file: file}
				o.spec, _ = spec.(object)
				if all[shape(o.name)] == nil { // inviting by address is a second description of the same path
					all[shape(o.name)] = o
				}
			}
		}
	}
	return d, all
}

var guestLine = regexp.MustCompile(`(?m)^\* .*\[(GET|PUT|POST|DELETE) (/\S+)\]\(#[a-z]+_matrixclient(v\d)`)

// forGuests are the operations that guests may use by § Guest Access, Client behaviour, and those that this server adds: clients join by
// alias, and whoever has a token may end it.
func (d *documents) forGuests(t *testing.T) map[string]bool {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(d.dir, "content/client-server-api/modules/guest_access.md"))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]bool{"POST /_matrix/client/v3/join/{}": true, "POST /_matrix/client/v3/logout": true, "POST /_matrix/client/v3/logout/all": true}
	for _, m := range guestLine.FindAllStringSubmatch(string(text), -1) {
		all[shape(m[1]+" /_matrix/client/"+m[3]+strings.Replace(m[2], "/displayname", "/{keyName}", 1))] = true
	}
	if len(all) < 25 {
		t.Fatalf("only %v are read as open to guests", all)
	}
	return all
}

// shape is a path without the names of its variables.
func shape(path string) string {
	segments := strings.Split(path, "/")
	for i, s := range segments {
		if strings.HasPrefix(s, "{") && !strings.Contains(s, "|") {
			segments[i] = "{}"
		}
	}
	return strings.Join(segments, "/")
}

func (d *documents) load(file string) (object, error) {
	if document, has := d.read[file]; has {
		return document, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var raw any
	if err := yaml.Unmarshal(text, &raw); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	document, is := plain(raw).(object)
	if !is {
		return nil, fmt.Errorf("%s is no object", file)
	}
	d.read[file] = document
	return document, nil
}

// plain makes the maps of YAML those of JSON.
func plain(v any) any {
	switch v := v.(type) {
	case map[any]any:
		m := make(object, len(v))
		for key, value := range v {
			m[fmt.Sprint(key)] = plain(value)
		}
		return m
	case []any:
		for i := range v {
			v[i] = plain(v[i])
		}
	}
	return v
}

// dig follows members.
func dig(o object, keys ...string) any {
	var v any = o
	for _, key := range keys {
		inner, _ := v.(object)
		v = inner[key]
	}
	return v
}

// resolve follows the reference of a schema, if it is one, and tells which file the result is in.
func (d *documents) resolve(file string, schema object) (string, object, error) {
	for depth := 0; depth < 20; depth++ {
		ref, is := schema["$ref"].(string)
		if !is {
			return file, schema, nil
		}
		name, pointer, _ := strings.Cut(ref, "#")
		if name != "" {
			file = filepath.Join(filepath.Dir(file), name)
		}
		document, err := d.load(file)
		if err != nil {
			return "", nil, err
		}
		schema = document
		if pointer = strings.Trim(pointer, "/"); pointer != "" {
			if schema, is = dig(document, strings.Split(pointer, "/")...).(object); !is {
				return "", nil, fmt.Errorf("%s leads nowhere", ref)
			}
		}
	}
	return "", nil, fmt.Errorf("references of %s do not end", file)
}

// response is the schema of an answer with a status, and its file. nil if the specification has none.
func (d *documents) response(o *operation, status int) (string, object, error) {
	responses, _ := o.spec["responses"].(object)
	r, _ := responses[fmt.Sprint(status)].(object)
	file, r, err := d.resolve(o.file, r)
	if err != nil {
		return "", nil, err
	}
	schema, _ := dig(r, "content", "application/json", "schema").(object)
	return file, schema, nil
}

// request is the schema of a body.
func (d *documents) request(o *operation) object {
	schema, _ := dig(o.spec, "requestBody", "content", "application/json", "schema").(object)
	return schema
}

// Whether a token is needed.
const (
	tokenNever    = "never"
	tokenOptional = "optional"
	tokenAlways   = "always"
)

func (o *operation) token() string {
	list, _ := o.spec["security"].([]any)
	switch {
	case len(list) == 0:
		return tokenNever
	case slices.ContainsFunc(list, func(v any) bool { m, _ := v.(object); return len(m) == 0 || m["signedRequest"] != nil }):
		return tokenOptional // the one operation with a scheme of that name may be served to anybody, by its text
	}
	return tokenAlways
}

func keys(o object) []string { return slices.Sorted(maps.Keys(o)) }
