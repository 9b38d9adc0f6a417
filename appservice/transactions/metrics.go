package transactions

import (
	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are counted by service. A nil Metrics counts nothing.
type Metrics struct {
	attempts, events, left *prometheus.CounterVec
}

// NewMetrics registers metrics.
func NewMetrics(r prometheus.Registerer) (*Metrics, error) {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, append([]string{"service"}, labels...))
	}
	m := &Metrics{
		attempts: counter("dendrite_appservice_transactions_total", "Transactions that were sent, each attempt, by whether they were taken.", "taken"),
		events:   counter("dendrite_appservice_events_total", "Events that services have taken."),
		left:     counter("dendrite_appservice_events_left_out_total", "Events that were not sent because they could not be read, or were skipped."),
	}
	for _, c := range []prometheus.Collector{m.attempts, m.events, m.left} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *Metrics) attempted(service string, taken bool) {
	if m != nil {
		m.attempts.WithLabelValues(service, map[bool]string{true: "yes", false: "no"}[taken]).Inc()
	}
}

func (m *Metrics) took(service string, events int64) {
	if m != nil {
		m.events.WithLabelValues(service).Add(float64(events))
	}
}

// Skipped counts events that are not sent.
func (m *Metrics) Skipped(service string, events int64) {
	if m != nil {
		m.left.WithLabelValues(service).Add(float64(events))
	}
}
