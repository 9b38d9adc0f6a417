package httputil

import "net/http"

// suspends tells whether an endpoint is refused to suspended accounts (Client-Server API, § Account suspension). They
// read, put their own things in order and go, and say nothing to others: an endpoint that is not asked by GET and not
// listed here is refused.
func (r *Route) suspends() bool {
	if r.Method == http.MethodGet {
		return false
	}
	switch r.Name {
	case
		// Logging in, logging out, deleting devices.
		"login_get_token", "logout", "logout_all", "put_device", "delete_device", "delete_devices",
		// Keeping the account safe, deactivating it, adding to how its user can be reached.
		"account_password", "account_deactivate", "put_third_party", "add_third_party", "bind_third_party",
		// Leaving rooms and rejecting invites.
		"leave", "forget",
		// Redacting one's own events: the roomserver refuses all else that comes this way.
		"send", "redact",
		// Verifying one's own devices and giving them keys: package todevice refuses all that is for others.
		"send_to_device",
		// Cancelling what one has delayed: package delayed sends nothing of it.
		"delayed_event",
		// Seeing messages, finding what one may see, and saying how far one has read.
		"search", "user_directory_search", "public_rooms_search", "put_filter", "receipt", "read_markers",
		"post_dehydrated_events",
		// Verifying devices, and writing what belongs to that.
		"keys_upload", "keys_query", "keys_claim", "device_signing_upload", "signatures_upload",
		// Setting what nobody else sees.
		"put_account_data", "put_room_account_data", "put_tag", "delete_tag", "set_pusher",
		"put_push_rule", "delete_push_rule", "put_push_rule_enabled", "put_push_rule_actions",
		// Telling administrators of others, and other services who one is.
		"report_room", "report_event", "report_user", "openid":
		return false
	}
	return true
}
