package contract

import (
	"encoding/json"
	"fmt"
	"math"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// check lists where a value differs from a schema. at is the place of the value.
func (d *documents) check(file string, schema object, value any, at string) (problems []string) {
	file, schema, err := d.resolve(file, schema)
	if err != nil {
		return []string{err.Error()}
	}
	complain := func(format string, args ...any) { problems = append(problems, at+": "+fmt.Sprintf(format, args...)) }
	if types := listOf(schema["type"]); len(types) > 0 && !slices.ContainsFunc(types, func(t any) bool { return isType(value, t) }) {
		complain("is %s, not %v", text(value), types)
		return problems
	}
	if enum := listOf(schema["enum"]); len(enum) > 0 && !slices.ContainsFunc(enum, func(v any) bool { return fmt.Sprint(v) == fmt.Sprint(value) }) {
		complain("is %s, none of %v", text(value), enum)
	}
	if constant, has := schema["const"]; has && !reflect.DeepEqual(constant, value) {
		complain("is %s, not %v", text(value), constant)
	}
	switch v := value.(type) {
	case string:
		if pattern, is := schema["pattern"].(string); is && !regexp.MustCompile(pattern).MatchString(v) {
			complain("%q does not match %s", v, pattern)
		}
		if format, _ := schema["format"].(string); !hasFormat(v, format) {
			complain("%q has not the format %s", v, format)
		}
	case []any:
		items, _ := schema["items"].(object)
		for i, item := range v {
			problems = append(problems, d.check(file, items, item, fmt.Sprintf("%s[%d]", at, i))...)
		}
	case object:
		problems = append(problems, d.checkObject(file, schema, v, at)...)
	}
	for _, part := range listOf(schema["allOf"]) {
		problems = append(problems, d.check(file, part.(object), value, at)...)
	}
	for _, kind := range []string{"anyOf", "oneOf"} {
		var all []string
		fits := 0
		for _, part := range listOf(schema[kind]) {
			p := d.check(file, part.(object), value, at)
			if len(p) == 0 {
				fits++
			}
			all = append(all, p...)
		}
		if len(listOf(schema[kind])) > 0 && (fits == 0 || kind == "oneOf" && fits != 1) {
			complain("fits %d of %s: %v", fits, kind, all)
		}
	}
	return problems
}

func (d *documents) checkObject(file string, schema, value object, at string) (problems []string) {
	for _, name := range listOf(schema["required"]) {
		if _, has := value[fmt.Sprint(name)]; !has {
			problems = append(problems, fmt.Sprintf("%s: has no %v", at, name))
		}
	}
	if most, is := schema["maxProperties"].(int); is && len(value) > most {
		problems = append(problems, fmt.Sprintf("%s: has more than %d members", at, most))
	}
	properties, _ := schema["properties"].(object)
	patterns, _ := schema["patternProperties"].(object)
	additional, hasAdditional := schema["additionalProperties"]
	for _, name := range keys(value) {
		place, known := at+"."+name, false
		if property, is := properties[name].(object); is {
			known = true
			problems = append(problems, d.check(file, property, value[name], place)...)
		}
		for pattern, property := range patterns {
			if regexp.MustCompile(pattern).MatchString(name) {
				known = true
				problems = append(problems, d.check(file, property.(object), value[name], place)...)
			}
		}
		if known || !hasAdditional {
			continue
		}
		if schema, is := additional.(object); is {
			problems = append(problems, d.check(file, schema, value[name], place)...)
		} else if additional == false {
			problems = append(problems, place+": is not allowed")
		}
	}
	return problems
}

// listOf is a list, or a list of one.
func listOf(v any) []any {
	if list, is := v.([]any); is || v == nil {
		return list
	}
	return []any{v}
}

func isType(value, name any) bool {
	switch v := value.(type) {
	case nil:
		return name == "null"
	case bool:
		return name == "boolean"
	case string:
		return name == "string"
	case float64:
		return name == "number" || name == "integer" && v == math.Trunc(v)
	case []any:
		return name == "array"
	}
	return name == "object"
}

func hasFormat(s, format string) bool {
	sigils := map[string]string{"mx-user-id": "@", "mx-room-id": "!", "mx-event-id": "$", "mx-room-alias": "#", "mx-mxc-uri": "mxc://"}
	if sigil, has := sigils[format]; has {
		return s == "" && format == "mx-mxc-uri" || strings.HasPrefix(s, sigil)
	}
	if format == "uri" {
		u, err := url.Parse(s)
		return err == nil && u.Scheme != ""
	}
	return true
}

func text(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func TestSchemasAreChecked(t *testing.T) {
	schema := object{"type": "object", "required": []any{"id", "tags"}, "properties": object{
		"id":   object{"type": "string", "format": "mx-user-id"},
		"n":    object{"type": []any{"integer", "null"}},
		"tags": object{"type": "array", "items": object{"type": "string", "enum": []any{"a", "b"}}},
		"any":  object{"oneOf": []any{object{"type": "string"}, object{"type": "object", "additionalProperties": object{"type": "boolean"}}}},
	}, "allOf": []any{object{"additionalProperties": object{}, "patternProperties": object{"^x-": object{"type": "number"}}}}}
	for document, want := range map[string]int{
		`{"id":"@a","tags":["a"],"n":null,"any":{"x":true},"x-y":1.5}`: 0,
		`{"id":"a","tags":["c"]}`:                                      2,
		`{"tags":{},"n":1.5}`:                                          3,
		`[]`:                                                           1,
		`{"id":"@a","tags":[],"any":1,"x-y":"text"}`:                   2,
		`{"id":"@a","tags":[1],"any":{"x":1}}`:                         2,
	} {
		var value any
		if err := json.Unmarshal([]byte(document), &value); err != nil {
			t.Fatal(err)
		}
		if problems := new(documents).check("", schema, value, "$"); len(problems) != want {
			t.Errorf("%s: %d problems, want %d: %v", document, len(problems), want, problems)
		}
	}
}
