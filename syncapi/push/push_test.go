package push

import (
	"context"
	"fmt"
	"testing"
)

func TestAGatewayHasSoManyRequestsAtATimeAndIsForgottenAfterwards(t *testing.T) {
	s := new(Service)
	var leave []func()
	for range gatewayRequests {
		l, err := s.gateway(t.Context(), "one.example")
		if err != nil {
			t.Fatal(err)
		}
		leave = append(leave, l)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.gateway(gone, "one.example"); err == nil {
		t.Error("a gateway gets more requests at a time than it may")
	}
	for i := range 1000 {
		l, err := s.gateway(t.Context(), fmt.Sprintf("%d.example", i))
		if err != nil {
			t.Fatal(err)
		}
		l()
	}
	if len(s.gateways) != 1 {
		t.Errorf("%d gateways are remembered, want the one that is asked", len(s.gateways))
	}
	for _, l := range leave {
		l()
	}
	if len(s.gateways) != 0 {
		t.Errorf("%d gateways are remembered that nobody asks", len(s.gateways))
	}
}
