package answer

import "context"

// loadDeviceLists finds whose keys the client must fetch anew, and whose it need not follow any more.
func (a *answering) loadDeviceLists(context.Context) error { return nil }

func (a *answering) hasDeviceLists() bool { return false }

func (a *answering) writeDeviceLists(o *out) {
	o.raw(`,"device_lists":{"changed":[],"left":[]}`)
}
