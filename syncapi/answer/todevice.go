package answer

import (
	"context"

	"github.com/matrix-org/dendrite/syncapi/storage"
)

// loadToDevice reads the first messages to the device that it was not handed out yet. Where these are all, the token
// says that all up to the position of the answer were: then the next sync reads only if something was sent since.
func (a *answering) loadToDevice(ctx context.Context) error {
	if !a.withMessages {
		return nil // what this answer does not have, no token says that it was handed out
	}
	upTo, isCut := a.window.UpTo, false
	if a.since.ToDevice < a.since.Pos || a.window.Changed(storage.KindToDevice, a.DeviceID) {
		var err error
		a.messages, isCut, err = a.Engine.ToDevice.Page(ctx, a.UserID, a.DeviceID, a.since.ToDevice, upTo)
		if err != nil {
			return err
		}
	}
	if isCut {
		upTo = a.messages[len(a.messages)-1].Pos
	}
	a.next.ToDevice = max(upTo, a.since.ToDevice)
	return nil
}

func (a *answering) hasToDevice() bool { return len(a.messages) > 0 }

func (a *answering) writeToDevice(o *out) {
	o.batch("to_device", len(a.messages), func(i int) { o.toDevice(&a.messages[i]) })
}

func (o *out) toDevice(m *storage.ToDevice) {
	o.raw(`{"content":`)
	o.b = append(o.b, m.Content...)
	o.raw(`,"sender":`)
	o.text(string(m.Sender))
	o.raw(`,"type":`)
	o.text(m.Type)
	o.raw(`}`)
}

// MessagesToDevice writes messages to a device as the events of an answer, with the token of what comes after, if there
// is one.
func MessagesToDevice(messages []storage.ToDevice, next string) []byte {
	o := &out{b: []byte(`{`)}
	o.list("events", len(messages), func(i int) { o.toDevice(&messages[i]) })
	if next != "" {
		o.key("next_batch")
		o.text(next)
	}
	o.raw(`}`)
	return o.b
}
