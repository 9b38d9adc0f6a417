package transactions

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/matrix-org/dendrite/appservice/api"
)

// Metrics are counted by service. A nil Metrics counts nothing.
type Metrics struct {
	attempts, events, left     *prometheus.CounterVec
	up, since, backlog, oldest *prometheus.GaugeVec
}

// NewMetrics registers metrics.
func NewMetrics(r prometheus.Registerer) (*Metrics, error) {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, append([]string{"service"},
			labels...))
	}
	gauge := func(name, help string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, []string{"service"})
	}
	m := &Metrics{
		up:      gauge("dendrite_appservice_up", "1 if the service has taken what it was sent last, else 0."),
		since:   gauge("dendrite_appservice_since_seconds", "Since when that is so, in seconds since the epoch."),
		backlog: gauge("dendrite_appservice_backlog_events", "Events that wait for the service."),
		oldest: gauge("dendrite_appservice_oldest_event_age_seconds",
			"How long the oldest of them waits; 0 if none does."),
		attempts: counter("dendrite_appservice_transactions_total",
			"Transactions that were sent, each attempt, by whether they were taken.", "taken"),
		events: counter("dendrite_appservice_events_total", "Events that services have taken."),
		left: counter("dendrite_appservice_events_left_out_total",
			"Events that were not sent because they could not be read, or were skipped."),
	}
	for _, c := range []prometheus.Collector{m.attempts, m.events, m.left, m.up, m.since, m.backlog, m.oldest} {
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

// Observe shows how far services are. Only the process that sends shows it.
func (m *Metrics) Observe(all []api.Status, now time.Time) {
	m.Reset()
	for i := range all {
		s := &all[i]
		up, age := 0.0, 0.0
		if s.Up {
			up = 1
		}
		if s.Oldest > 0 {
			age = max(0, now.Sub(time.UnixMilli(s.Oldest)).Seconds())
		}
		m.up.WithLabelValues(s.Service).Set(up)
		m.since.WithLabelValues(s.Service).Set(float64(s.Since) / 1000)
		m.backlog.WithLabelValues(s.Service).Set(float64(s.Backlog))
		m.oldest.WithLabelValues(s.Service).Set(age)
	}
}

// Reset takes back what Observe shows.
func (m *Metrics) Reset() {
	for _, g := range []*prometheus.GaugeVec{m.up, m.since, m.backlog, m.oldest} {
		g.Reset()
	}
}
