package blackbox

import "testing"

// A client that knows a room as joined learns that its user left, also if they forgot it at once, whatever the client
// asks for.
func TestAForgottenRoomIsLeft(t *testing.T) {
	one(t, func(t *testing.T, d *deployment) {
		alice := d.user(t, "alice")
		room := alice.publicRoom()
		since := alice.now()
		alice.must("POST", at("rooms", room, "leave"), object{})
		alice.must("POST", at("rooms", room, "forget"), object{})
		for _, parameters := range [][]string{nil, {"full_state", "true"},
			append(filtered(object{"room": object{"include_leave": true}}), "full_state", "true")} {
			answer := alice.sync(since, parameters...)
			if !roomIn(answer, "leave", room).Exists() {
				t.Errorf("with %v, there is no room that is left: %s", parameters, answer.Raw)
			}
		}
	})
}
