package answer

// hasKeyCounts tells whether what can be claimed of the device's keys has changed since the token.
func (a *answering) hasKeyCounts() bool { return false }

func (a *answering) writeKeyCounts(o *out) {
	o.raw(`,"device_one_time_keys_count":{},"device_unused_fallback_key_types":[]`)
}
