package thirdparty

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/registration"
)

// Protocol is what clients are told of a third-party network. All members are there, whatever a service leaves out.
type Protocol struct {
	UserFields     []string             `json:"user_fields"`
	LocationFields []string             `json:"location_fields"`
	Icon           string               `json:"icon"`
	FieldTypes     map[string]FieldType `json:"field_types"`
	// Instances are objects with desc, fields, network_id and instance_id, and what else the service says, such as
	// bot_user_id.
	Instances []Result `json:"instances"`
}

// FieldType tells what values a field may have.
type FieldType struct {
	Regexp      string `json:"regexp"`
	Placeholder string `json:"placeholder"`
}

// size is how many bytes it takes, about.
func (p *Protocol) size() int {
	if p == nil {
		return 0
	}
	n := len(p.Icon) + 256
	for _, fields := range [][]string{p.UserFields, p.LocationFields} {
		for _, f := range fields {
			n += len(f) + 16
		}
	}
	for name, t := range p.FieldTypes {
		n += len(name) + len(t.Regexp) + len(t.Placeholder) + 64
	}
	for _, instance := range p.Instances {
		for name, value := range instance {
			n += len(name) + len(value) + 64
		}
	}
	return n
}

// with adds the instances of another service. Everything else is as the first service says. p may be nil.
func (p *Protocol) with(other *Protocol) *Protocol {
	if p == nil {
		return other
	}
	// Both are shared with the cache.
	merged := *p
	merged.Instances = append(p.Instances[:len(p.Instances):len(p.Instances)], other.Instances...)
	return &merged
}

// parseProtocol reads what a service says of a protocol. Members of another type are taken for those that are not
// there: bridges write null for what they have not.
func parseProtocol(r *registration.Registration, body []byte) (*Protocol, error) {
	all, err := objectOf(body)
	if err != nil {
		return nil, fmt.Errorf("what the application service %s says of a protocol is no object", r.ID)
	}
	p := &Protocol{UserFields: texts(all["user_fields"]), LocationFields: texts(all["location_fields"]), Icon: text(all["icon"]),
		FieldTypes: make(map[string]FieldType), Instances: []Result{}}
	// What is no object has no fields.
	types, _ := objectOf(all["field_types"])
	for name, raw := range types {
		if t, err := objectOf(raw); err == nil && len(p.FieldTypes) < MaxResults {
			p.FieldTypes[name] = FieldType{Regexp: text(t["regexp"]), Placeholder: text(t["placeholder"])}
		}
	}
	for _, raw := range list(all["instances"]) {
		if instance, err := objectOf(raw); err == nil {
			p.Instances = append(p.Instances, complete(r, instance))
		}
	}
	return p, nil
}

// complete gives an instance what every instance has. Its instance_id names the network to clients: it is unique on
// this server.
func complete(r *registration.Registration, instance Result) Result {
	network := text(instance["network_id"])
	for name, value := range map[string]string{"network_id": network, "desc": text(instance["desc"]), "instance_id": r.ID + "|" + network} {
		instance[name] = quote(value)
	}
	if _, is := instance["icon"]; is {
		instance["icon"] = quote(text(instance["icon"]))
	}
	if !isObject(instance["fields"]) {
		instance["fields"] = json.RawMessage(`{}`)
	}
	return instance
}

// kind is a kind of results.
type kind struct {
	what   string
	member string // what names it in Matrix
	valid  func(string) error
}

var (
	locations = kind{"location", "alias", func(s string) error {
		_, err := id.ParseRoomAlias(s)
		return err
	}}
	users = kind{"user", "userid", func(s string) error {
		_, err := id.ParseUserID(s)
		return err
	}}
)

// parseResults reads what a service has found. Results that name nothing in Matrix are left out. protocol is the one
// that was asked for, empty if none was.
func parseResults(r *registration.Registration, k kind, protocol string, body []byte) ([]Result, error) {
	if len(body) == 0 || body[0] != '[' {
		return nil, fmt.Errorf("what the application service %s has found is no list", r.ID)
	}
	var found []Result
	for _, raw := range list(body) {
		result, err := objectOf(raw)
		if err != nil || k.valid(text(result[k.member])) != nil {
			continue
		}
		if text(result["protocol"]) == "" {
			if protocol == "" && len(r.Protocols) != 1 {
				continue // it could be any
			}
			result["protocol"] = quote(protocol)
			if protocol == "" {
				result["protocol"] = quote(r.Protocols[0])
			}
		}
		if !isObject(result["fields"]) {
			result["fields"] = json.RawMessage(`{}`)
		}
		found = append(found, result)
	}
	return found, nil
}

// text is a string, or a number or boolean as one. Everything else is empty.
func text(raw json.RawMessage) string {
	var v any
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		return "" // there is nothing
	}
	switch v := v.(type) {
	case string:
		return v
	case json.Number, bool:
		return fmt.Sprint(v)
	}
	return ""
}

// quote is a text as JSON.
func quote(s string) json.RawMessage {
	// A string can be marshalled.
	b, err := json.Marshal(s)
	if err != nil {
		panic(fmt.Sprintf("%q: %v", s, err))
	}
	return b
}

// list are the first entries of a list; none of what is no list.
func list(raw json.RawMessage) []json.RawMessage {
	var all []json.RawMessage
	if err := json.Unmarshal(raw, &all); err != nil {
		return nil
	}
	return all[:min(len(all), MaxResults)]
}

// texts are the texts of a list.
func texts(raw json.RawMessage) []string {
	all := []string{}
	for _, one := range list(raw) {
		if s := text(one); s != "" {
			all = append(all, s)
		}
	}
	return all
}

func isObject(raw json.RawMessage) bool {
	_, err := objectOf(raw)
	return err == nil
}

// objectOf are the members of an object.
func objectOf(raw json.RawMessage) (Result, error) {
	var all Result
	if err := json.Unmarshal(raw, &all); err != nil {
		return nil, err
	}
	if all == nil {
		return nil, fmt.Errorf("null is no object")
	}
	return all, nil
}
