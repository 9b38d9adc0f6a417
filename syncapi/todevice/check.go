package todevice

import (
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/syncapi/api"
)

// Bounds of what one request sends.
const (
	// MaxNamed is how many devices a request names. Clients name some hundred at a time.
	MaxNamed = 2000
	// MaxRecipients is how many devices a request reaches: that of twenty users who have as many as one may have.
	MaxRecipients = 20_000
	// MaxContent is how many bytes a message has, which is what an event may have.
	MaxContent = 64 << 10
	maxName    = 255 // bytes of a type or of the id of a device, as in events
)

// Request is what a user sends.
type Request struct {
	api.SendToDeviceRequest
	// Suspended says that the account is suspended: it may only verify its user's devices and give these its keys
	// (Client-Server API, § Account suspension).
	Suspended bool
}

// check refuses what nobody can get.
func (r *Request) check() error {
	if r.Type == "" || len(r.Type) > maxName {
		return mxerr.InvalidParam("the event type must have 1 to %d bytes", maxName)
	}
	named := 0
	for user, devices := range r.Messages {
		if _, err := id.ParseUserID(string(user)); err != nil {
			return mxerr.InvalidParam("messages: %v", err)
		}
		if devices == nil {
			return mxerr.BadJSON("messages for %s must be an object: of the id of each device, or %q, and its message",
				user, api.AllDevices)
		}
		if r.Suspended && user != r.Sender {
			return mxerr.Suspended()
		}
		if named += len(devices); named > MaxNamed {
			return mxerr.TooLarge("one request may name %d devices: send to the others in another", MaxNamed)
		}
		for device, content := range devices {
			if len(device) > maxName {
				return mxerr.InvalidParam("the id of a device of %s has more than %d bytes", user, maxName)
			}
			if len(content) == 0 || content[0] != '{' {
				return mxerr.BadJSON("the message for device %s of %s must be an object", device, user)
			}
			if len(content) > MaxContent {
				return mxerr.TooLarge("the message for device %s of %s has more than %d bytes", device, user, MaxContent)
			}
		}
	}
	return nil
}
