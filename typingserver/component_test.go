package typingserver

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/matrix-org/dendrite/common/component"
	"github.com/matrix-org/dendrite/common/config"
	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/typingserver/api"
)

func TestAChangeIsAnnouncedAndCanBeAskedFor(t *testing.T) {
	transport := eventlog.NewEmbedded()
	c, err := New(t.Context(), component.Deps{Transport: transport, Config: config.Default()})
	if err != nil {
		t.Fatal(err)
	}
	typing := c.API.(*api.TypingserverAPI)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	heard := make(chan api.OutputTyping, 100)
	go func() {
		_ = transport.Subscribe(ctx, api.Topic, func(_ string, value []byte) {
			var output api.OutputTyping
			if err := json.Unmarshal(value, &output); err != nil {
				t.Error(err)
			}
			heard <- output
		}, nil)
	}()
	// What is published before somebody subscribes is lost: change until the first change is heard.
	for i := 0; ; i++ {
		set, err := typing.SetTyping(ctx, api.SetTypingRequest{RoomID: "!a:b", UserID: "@a:b", Typing: i%2 == 0, Timeout: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		select {
		case output := <-heard:
			if output.RoomID != "!a:b" || output.Number > set.Number {
				t.Errorf("heard %+v after change %d", output, set.Number)
			}
		case <-time.After(time.Millisecond):
			continue
		}
		break
	}
	if _, err := typing.SetTyping(ctx, api.SetTypingRequest{RoomID: "!a:b", UserID: "@b:b", Typing: true, Timeout: time.Minute}); err != nil {
		t.Fatal(err)
	}
	now, err := typing.QueryTyping(ctx, api.QueryTypingRequest{})
	if err != nil || len(now.Rooms) != 1 {
		t.Errorf("%+v, %v", now, err)
	}
}
