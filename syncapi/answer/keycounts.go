package answer

// noKeys is what is said of a device that never had keys. Clients read a count that is missing as one that they do not
// know, and then upload nothing: that of the algorithm of the specification is always said.
const noKeys = `,"device_one_time_keys_count":{"signed_curve25519":0},"device_unused_fallback_key_types":[]`

// hasKeyCounts tells whether what can be claimed of the device's keys has changed since the token.
func (a *answering) hasKeyCounts() bool {
	keys := a.window.Keys(a.DeviceID)
	return keys != nil && keys.Pos > a.since.Pos
}

// writeKeyCounts writes what can be claimed, which every answer has.
func (a *answering) writeKeyCounts(o *out) {
	keys := a.window.Keys(a.DeviceID)
	if keys == nil {
		o.raw(noKeys)
		return
	}
	o.key("device_one_time_keys_count")
	o.raw(string(keys.OneTime))
	o.key("device_unused_fallback_key_types")
	o.raw(string(keys.Fallback))
}
