package api

import (
	"strconv"
	"time"

	"github.com/matrix-org/dendrite/common/pdu"
)

// AppendClient appends the event as its viewer's client gets it: with the unsigned data that this server vouches for (Client-Server
// API, § Room event format). o.Unsigned is made here, whatever it holds.
func (e *Event) AppendClient(dst []byte, v Viewer, o pdu.ClientOptions) []byte {
	return e.appendClient(dst, v, o, time.Now())
}

func (e *Event) appendClient(dst []byte, v Viewer, o pdu.ClientOptions, now time.Time) []byte {
	o.Unsigned = func(dst []byte) []byte { return e.appendUnsigned(dst, v, o, now) }
	return e.PDU.AppendClient(dst, o)
}

// MarshalClients makes a JSON array of such events, in room of about its size.
func MarshalClients(events []Event, v Viewer, o pdu.ClientOptions, room func(size int) []byte) []byte {
	now, size := time.Now(), 2
	for i := range events {
		size += len(events[i].PDU.JSON()) // which has hashes and signatures instead of unsigned
	}
	dst := append(room(size), '[')
	for i := range events {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = events[i].appendClient(dst, v, o, now)
	}
	return append(dst, ']')
}

func (e *Event) appendUnsigned(out []byte, v Viewer, o pdu.ClientOptions, now time.Time) []byte {
	out = append(out, `{"age":`...)
	out = strconv.AppendInt(out, now.UnixMilli()-e.PDU.OriginServerTS(), 10)
	out = appendText(out, "membership", e.Membership)
	if len(e.PrevContent) > 0 {
		out = append(append(out, `,"prev_content":`...), e.PrevContent...)
	}
	if because := e.RedactedBecause; because != nil {
		out = because.AppendClient(append(out, `,"redacted_because":`...), pdu.ClientOptions{WithRoomID: o.WithRoomID})
	}
	if e.Relations != nil {
		out = e.Relations.append(append(out, `,"m.relations":`...), v, o, now)
	}
	out = appendText(out, "replaces_state", string(e.ReplacesState))
	if v.UserID != "" && v.UserID == e.PDU.Sender() && v.DeviceID == e.DeviceID {
		out = appendText(out, "transaction_id", e.TransactionID)
	}
	return append(out, '}')
}

// appendText adds a member to an object that has one already; none if the value is empty.
func appendText(out []byte, name, value string) []byte {
	if value == "" {
		return out
	}
	return pdu.AppendString(append(append(append(out, `,"`...), name...), `":`...), value)
}

// append writes the aggregations as the value of m.relations.
func (r *Relations) append(out []byte, v Viewer, o pdu.ClientOptions, now time.Time) []byte {
	begin := len(out)
	name := func(relType string) {
		if len(out) > begin+1 {
			out = append(out, ',')
		}
		out = append(pdu.AppendString(out, relType), ':')
	}
	out = append(out, '{')
	if r.Reference != nil {
		name(pdu.RelReference)
		out = append(out, `{"chunk":[`...)
		for i, child := range r.Reference {
			if i > 0 {
				out = append(out, ',')
			}
			out = append(pdu.AppendString(append(out, `{"event_id":`...), string(child)), '}')
		}
		out = append(out, `]}`...)
	}
	if r.Replace != nil {
		name(pdu.RelReplace)
		out = r.Replace.appendClient(out, v, o, now)
	}
	if t := r.Thread; t != nil {
		name(pdu.RelThread)
		out = t.Latest.appendClient(append(out, `{"latest_event":`...), v, o, now)
		out = strconv.AppendInt(append(out, `,"count":`...), t.Count, 10)
		out = strconv.AppendBool(append(out, `,"current_user_participated":`...), t.Participated)
		out = append(out, '}')
	}
	return append(out, '}')
}
