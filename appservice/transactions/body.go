package transactions

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/matrix-org/dendrite/common/id"
)

// unstable are the names that services know which were written before a proposal was accepted (MSC2409, MSC3202).
const (
	msc2409 = "de.sorunome.msc2409."
	msc3202 = "org.matrix.msc3202."
)

// body makes the JSON of a transaction. What is empty is left out, but for events, which are required.
func body(events []json.RawMessage, parts []Part) ([]byte, error) {
	w := &writer{}
	w.b.WriteString(`{"events":`)
	w.list(events)
	var ephemeral, toDevice []json.RawMessage
	var changed, left []id.UserID
	counts, fallback := make(map[id.UserID]map[id.DeviceID]map[string]int), make(map[id.UserID]map[id.DeviceID][]string)
	for i := range parts {
		p := &parts[i]
		ephemeral, toDevice = append(ephemeral, p.Ephemeral...), append(toDevice, p.ToDevice...)
		changed, left = append(changed, p.Changed...), append(left, p.Left...)
		for user, devices := range p.OneTimeKeyCounts {
			counts[user] = devices
		}
		for user, devices := range p.UnusedFallbackKeyTypes {
			fallback[user] = devices
		}
	}
	if len(ephemeral) > 0 {
		w.raw("ephemeral", msc2409, ephemeral)
	}
	if len(toDevice) > 0 {
		w.raw("to_device", msc2409, toDevice)
	}
	if len(changed)+len(left) > 0 {
		w.value("device_lists", struct {
			Changed []id.UserID `json:"changed,omitempty"`
			Left    []id.UserID `json:"left,omitempty"`
		}{changed, left})
	}
	if len(counts) > 0 {
		w.value("device_one_time_keys_count", counts)
	}
	if len(fallback) > 0 {
		w.value("device_unused_fallback_key_types", fallback)
	}
	w.b.WriteByte('}')
	return w.b.Bytes(), w.err
}

// half makes a body with the first half of the events of another one, and with all else that it has.
func half(body []byte) (shorter []byte, ids []id.EventID, err error) {
	var members map[string]json.RawMessage
	var events []json.RawMessage
	err = json.Unmarshal(body, &members)
	if err == nil {
		err = json.Unmarshal(members["events"], &events)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("stored transaction: %w", err)
	}
	events = events[:len(events)/2]
	for _, e := range events {
		var event struct {
			ID id.EventID `json:"event_id"`
		}
		if err := json.Unmarshal(e, &event); err != nil {
			return nil, nil, fmt.Errorf("event of a stored transaction: %w", err)
		}
		ids = append(ids, event.ID)
	}
	w := &writer{}
	w.b.WriteString(`{"events":`)
	w.list(events)
	delete(members, "events")
	for _, name := range slices.Sorted(maps.Keys(members)) {
		fmt.Fprintf(&w.b, `,%q:%s`, name, members[name])
	}
	w.b.WriteByte('}')
	return w.b.Bytes(), ids, nil
}

type writer struct {
	b   bytes.Buffer
	err error
}

func (w *writer) list(entries []json.RawMessage) {
	w.b.WriteByte('[')
	for i, e := range entries {
		if i > 0 {
			w.b.WriteByte(',')
		}
		w.b.Write(e)
	}
	w.b.WriteByte(']')
}

// raw writes a member under its stable and its unstable name.
func (w *writer) raw(name, prefix string, entries []json.RawMessage) {
	for _, name := range []string{name, prefix + name} {
		fmt.Fprintf(&w.b, `,%q:`, name)
		w.list(entries)
	}
}

// value writes a member of MSC3202 under both names.
func (w *writer) value(name string, value any) {
	text, err := json.Marshal(value)
	if err != nil {
		w.err = fmt.Errorf("%s of a transaction: %w", name, err)
		return
	}
	for _, name := range []string{name, msc3202 + name} {
		fmt.Fprintf(&w.b, `,%q:%s`, name, text)
	}
}
