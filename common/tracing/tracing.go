// Package tracing makes the tracer of a process. It is the only package that knows that spans go to Jaeger; all others know
// OpenTracing.
package tracing

import (
	"fmt"
	"io"

	"github.com/opentracing/opentracing-go"
	"github.com/sirupsen/logrus"
	"github.com/uber/jaeger-client-go"
	jaegerconfig "github.com/uber/jaeger-client-go/config"

	"github.com/matrix-org/dendrite/common/config"
)

// New makes the tracer of a process with this name. Closing sends what has not been sent yet. A collector that cannot be reached
// loses spans and disturbs nothing else.
func New(c config.Tracing, process string, log *logrus.Entry) (opentracing.Tracer, io.Closer, error) {
	if !c.Enabled {
		return opentracing.NoopTracer{}, io.NopCloser(nil), nil
	}
	settings := jaegerconfig.Configuration{
		ServiceName: "dendrite-" + process,
		Sampler:     &jaegerconfig.SamplerConfig{Type: jaeger.SamplerTypeProbabilistic, Param: c.Jaeger.Sampling},
		Reporter:    &jaegerconfig.ReporterConfig{LocalAgentHostPort: c.Jaeger.Agent, CollectorEndpoint: c.Jaeger.Collector},
	}
	tracer, closer, err := settings.NewTracer(jaegerconfig.Logger(logger{log}))
	if err != nil {
		return nil, nil, fmt.Errorf("tracing.jaeger: %w", err)
	}
	return tracer, closer, nil
}

type logger struct{ log *logrus.Entry }

func (l logger) Error(message string)          { l.log.WithField("message", message).Warn("tracing") }
func (l logger) Infof(format string, a ...any) { l.log.Debugf(format, a...) }
