package tracing

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/opentracing/opentracing-go"
	"github.com/sirupsen/logrus"

	"github.com/matrix-org/dendrite/common/config"
)

func TestSpansReachTheCollector(t *testing.T) {
	spans := make(chan struct{}, 10)
	collector := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { spans <- struct{}{} }))
	defer collector.Close()
	tracer, closer, err := New(config.Tracing{Enabled: true, Jaeger: config.Jaeger{Collector: collector.URL, Sampling: 1}}, "test",
		logrus.NewEntry(logrus.New()))
	if err != nil {
		t.Fatal(err)
	}
	tracer.StartSpan("something").Finish()
	if err := closer.Close(); err != nil {
		t.Fatal(err)
	}
	<-spans
}

func TestNothingIsTracedWhenTracingIsDisabled(t *testing.T) {
	tracer, _, err := New(config.Default().Tracing, "test", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, is := tracer.(opentracing.NoopTracer); !is {
		t.Errorf("disabled tracing has a %T", tracer)
	}
}
