package eventlog

import (
	"context"
	"encoding/json"

	"github.com/opentracing/opentracing-go"
)

// injectTrace writes the span of ctx, so that it can travel with a record; nothing if there is none.
func injectTrace(ctx context.Context, tracer opentracing.Tracer) string {
	span := opentracing.SpanFromContext(ctx)
	if span == nil {
		return ""
	}
	carrier := opentracing.TextMapCarrier{}
	if tracer.Inject(span.Context(), opentracing.TextMap, carrier) != nil || len(carrier) == 0 {
		return ""
	}
	text, err := json.Marshal(carrier)
	if err != nil {
		return ""
	}
	return string(text)
}

// extractTrace reads what injectTrace wrote; nil if there is nothing.
func extractTrace(tracer opentracing.Tracer, text string) opentracing.SpanContext {
	if text == "" {
		return nil
	}
	carrier := opentracing.TextMapCarrier{}
	if json.Unmarshal([]byte(text), &carrier) != nil {
		return nil
	}
	span, err := tracer.Extract(opentracing.TextMap, carrier)
	if err != nil {
		return nil
	}
	return span
}
