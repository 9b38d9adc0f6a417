package blackbox

import (
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/uber/jaeger-client-go/thrift"
	"github.com/uber/jaeger-client-go/thrift-gen/jaeger"

	"github.com/matrix-org/dendrite/common/config"
)

// collector takes spans as Jaeger does.
type collector struct {
	mu    sync.Mutex
	spans map[int64][]string // by trace: process and operation
	more  chan struct{}
}

func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	buffer := thrift.NewTMemoryBuffer()
	if _, err := buffer.Write(body); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	batch := jaeger.NewBatch()
	if err := batch.Read(r.Context(), thrift.NewTBinaryProtocolConf(buffer, nil)); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range batch.Spans {
		c.spans[s.TraceIdLow] = append(c.spans[s.TraceIdLow], strings.TrimPrefix(batch.Process.ServiceName, "dendrite-")+": "+s.OperationName)
	}
	select {
	case c.more <- struct{}{}:
	default:
	}
}

// A request is one trace: from the listener that took it through the component that owns it, its calls, its statements, and the log to
// those who follow it.
func TestATraceFollowsASendThroughAllComponents(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	c := &collector{spans: map[int64][]string{}, more: make(chan struct{}, 1)}
	jaegerServer := httptest.NewServer(c)
	defer jaegerServer.Close()
	d := own(t, polylith, func(cfg *config.Config) {
		cfg.Tracing = config.Tracing{Enabled: true, Jaeger: config.Jaeger{Collector: jaegerServer.URL + "/api/traces", Sampling: 1}}
	})
	alice := d.user(t, "alice")
	alice.base = "http://" + d.config.Listen.SyncAPI.Public // which passes it on
	room := alice.publicRoom()
	alice.say(room, "hello")
	want := []string{"syncapi: pass on to clientapi", "clientapi: ", "roomserver: roomserver.SendEvent", "roomserver: sql room events", "syncapi: apply room by syncapi"}
	deadline := time.After(8 * time.Second)
	for {
		c.mu.Lock()
		var nearest []string
		for _, spans := range c.spans {
			var missing []string
			for _, w := range want {
				if !slices.ContainsFunc(spans, func(s string) bool { return strings.HasPrefix(s, w) }) {
					missing = append(missing, w)
				}
			}
			if len(missing) == 0 {
				c.mu.Unlock()
				return
			}
			if nearest == nil || len(missing) < len(nearest) {
				nearest = missing
			}
		}
		c.mu.Unlock()
		select {
		case <-c.more:
		case <-deadline:
			t.Fatalf("no trace has all of %q; the best one lacks %q; all are %v", want, nearest, c.spans)
		}
	}
}
