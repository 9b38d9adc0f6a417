package blackbox

import (
	"testing"
)

func TestRegistrationsAreReadWhileTheServerRuns(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		s := newService(t, d, nil)
		if err := d.Register(s.id+"-bad", "id: only"); err == nil {
			t.Error("a registration without its keys is taken")
		}
		if err := d.Register(s.id+"-bad", ""); err != nil {
			t.Error(err)
		}
	})
}
