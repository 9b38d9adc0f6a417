package sqlutil

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Counter counts what a DB did since it was opened. Tests compare two readings.
type Counter struct {
	Statements   atomic.Int64
	Transactions atomic.Int64
	Commits      atomic.Int64 // of what was written; closures that SQLite commits together are one
	Rows         atomic.Int64 // written, as far as statements tell
}

// Count is a reading of a Counter.
type Count struct{ Statements, Transactions, Commits, Rows int64 }

// Count reads the counters.
func (db *DB) Count() Count {
	return Count{db.counter.Statements.Load(), db.counter.Transactions.Load(), db.counter.Commits.Load(), db.counter.Rows.Load()}
}

// Since is what was done since an earlier reading.
func (c Count) Since(earlier Count) Count {
	return Count{c.Statements - earlier.Statements, c.Transactions - earlier.Transactions, c.Commits - earlier.Commits, c.Rows - earlier.Rows}
}

type metrics struct {
	seconds *prometheus.HistogramVec
	errors  *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "dendrite_sql_seconds",
			Help: "Time of transactions, waiting included.", Buckets: prometheus.ExponentialBuckets(0.0001, 4, 9)}, []string{"transaction"}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "dendrite_sql_errors_total",
			Help: "Transactions that failed."}, []string{"transaction"}),
	}
	if r != nil {
		m.seconds = register(r, m.seconds)
		m.errors = register(r, m.errors)
	}
	return m
}

// register uses what another DB of the process registered: components of one process share a registry.
func register[C prometheus.Collector](r prometheus.Registerer, c C) C {
	if err := r.Register(c); err != nil {
		if already, is := err.(prometheus.AlreadyRegisteredError); is {
			if existing, same := already.ExistingCollector.(C); same {
				return existing
			}
		}
	}
	return c
}

func (m *metrics) observe(name string, took time.Duration, err error) {
	m.seconds.WithLabelValues(name).Observe(took.Seconds())
	if err != nil {
		m.errors.WithLabelValues(name).Inc()
	}
}
