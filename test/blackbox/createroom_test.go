package blackbox

import (
	"fmt"
	"testing"
)

// What one request may put into a new room is bounded, and what is beyond is refused with a word that says so (§
// Creation).
func TestTheSizeOfANewRoomIsBounded(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice := d.user(t, "alice")
		state := func(n int) (all []object) {
			for i := range n {
				all = append(all, object{"type": "x.state", "state_key": fmt.Sprint(i), "content": object{"n": i}})
			}
			return all
		}
		alice.refused(400, "M_INVALID_PARAM", "POST", at("createRoom"), object{"initial_state": state(1001)})
		room := alice.createRoom(object{"initial_state": state(1000)})
		equal(t, "the last of 1000 state events", alice.state(room, "x.state", "999").Get("n").Int(), int64(999))
		var invite []string
		for i := range 5000 {
			invite = append(invite, fmt.Sprintf("@nobody%d:%s", i, d.config.Matrix.ServerName))
		}
		alice.refused(400, "M_INVALID_PARAM", "POST", at("createRoom"), object{"invite": invite})
	})
}
