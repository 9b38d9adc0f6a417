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

// maxTraces bounds the spans for one batch of records.
const maxTraces = 20

// Span starts a span for the work on records in each trace that appended one of them: the work is part of all of them. What the
// work itself calls is in the first.
func Span(ctx context.Context, tracer opentracing.Tracer, name string, records []Record) (context.Context, func(error)) {
	var spans []opentracing.Span
	seen := ""
	for i := range records {
		if records[i].Trace == seen || len(spans) == maxTraces {
			continue // records of one request stand together
		}
		seen = records[i].Trace
		if parent := extractTrace(tracer, seen); parent != nil {
			span := tracer.StartSpan(name, opentracing.FollowsFrom(parent))
			span.SetTag("records", len(records))
			spans = append(spans, span)
		}
	}
	if len(spans) == 0 {
		return ctx, func(error) {}
	}
	return opentracing.ContextWithSpan(ctx, spans[0]), func(err error) {
		for _, span := range spans {
			if err != nil {
				span.SetTag("error", true)
			}
			span.Finish()
		}
	}
}
