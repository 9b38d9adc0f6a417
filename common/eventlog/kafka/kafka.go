// Package kafka carries logs (common/eventlog) between processes with Apache Kafka, or what speaks its protocol.
//
// Kafka is the fast path and never the truth. The log is the producer's rows; a topic of Kafka has the same 64 partitions and,
// most of the time, the same records. It may be wiped, restarted, or written to by two relays: a consumer applies only the record
// after its last one, drops what it knows, and reads from the producer what is missing. So nothing here has to be exactly once;
// it has to be quick, and has to find its way back by itself.
//
// # The relay
//
// One replica of a component holds the lease of its relay and produces the rows of each topic. It keeps no note of what it has
// produced: it goes on after the sequence of the partition's last Kafka record, and reads that anew when it takes the lease, after
// any error, when a record got another offset than the one after the last, and every ten seconds. Replicas without the lease tell
// the one that has it of their commits by an ephemeral message, so a commit is two hops away from consumers, or one where the
// holder made it.
//
// # A partition without records
//
// A new topic, one that was wiped, and one whose records have all expired have no last record, and nothing tells how far consumers
// are. To begin at sequence 1 would produce a log that is never pruned once more. To begin behind the head would leave what was
// committed while nobody relayed to the consumers' comparison with the head every ten seconds, and would leave the partition as
// empty as before, so that the same question came up at each reading. So the relay begins with the head: it produces the last
// record once more. A consumer that has it drops it; one that lacks anything before it sees the gap and reads all of it from the
// producer at once; and the partition has a last record again.
//
// # Followers
//
// The replicas of a consumer are a consumer group: Kafka shares the partitions among them, and a rebalance stops only those that
// move. Whoever thinks that it owns a partition that has gone to another is stopped by the consumer's conditional offset. The
// group's own offsets are hints that save reading old records again.
package kafka

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"github.com/opentracing/opentracing-go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"

	"github.com/matrix-org/dendrite/common/config"
	"github.com/matrix-org/dendrite/common/eventlog"
)

const (
	dialTimeout = 3 * time.Second
	netTimeout  = 10 * time.Second // of one request; longer than a rebalance makes a member wait

	sessionTimeout = 6 * time.Second        // a member that says nothing for so long loses its partitions
	heartbeat      = 500 * time.Millisecond // a member hears of a rebalance only in the answer
	rebalanceLimit = 8 * time.Second

	firstBackoff = 50 * time.Millisecond
	maxBackoff   = 5 * time.Second
)

// Options of a Transport.
type Options struct {
	Config  config.Kafka
	Log     *logrus.Entry
	Metrics prometheus.Registerer
	Tracer  opentracing.Tracer
}

// Transport carries logs and ephemeral messages over Kafka. One serves all components of a process.
type Transport struct {
	o       Options
	base    *sarama.Config // what every client begins from
	metrics metrics

	mu        sync.Mutex
	client    sarama.Client                // that publishes
	ephemeral chan *sarama.ProducerMessage // those that wait for the producer
	ensured   map[string]bool              // ephemeral topics that are known to be there
	away      error                        // why nothing can be published until again
	again     time.Time
	closed    bool
	producers sync.WaitGroup
}

var _ eventlog.Transport = (*Transport)(nil)

// New makes a Transport. It does not wait for the broker: whatever needs it backs off until it is there.
func New(o Options) (*Transport, error) {
	if o.Log == nil {
		o.Log = logrus.NewEntry(logrus.StandardLogger())
	}
	if o.Tracer == nil {
		o.Tracer = opentracing.NoopTracer{}
	}
	base, err := baseConfig(o.Config)
	if err != nil {
		return nil, err
	}
	t := &Transport{o: o, base: base, ensured: make(map[string]bool), metrics: newMetrics()}
	if o.Metrics != nil {
		for _, c := range t.metrics.all() {
			if err := o.Metrics.Register(c); err != nil {
				return nil, fmt.Errorf("metrics of kafka: %w", err)
			}
		}
	}
	return t, nil
}

func baseConfig(c config.Kafka) (*sarama.Config, error) {
	s := sarama.NewConfig()
	s.ClientID = "dendrite"
	// The oldest brokers that know cooperative rebalances; newer ones speak this as well.
	s.Version = sarama.V2_4_0_0
	s.Net.DialTimeout, s.Net.ReadTimeout, s.Net.WriteTimeout = dialTimeout, netTimeout, netTimeout
	s.Metadata.AllowAutoTopicCreation = false
	s.Metadata.Full = false
	s.Metadata.Retry.Max, s.Metadata.Retry.Backoff = 2, 100*time.Millisecond
	s.Metadata.Timeout = netTimeout
	if c.TLS.Enabled {
		t, err := tlsConfig(c.TLS)
		if err != nil {
			return nil, err
		}
		s.Net.TLS.Enable, s.Net.TLS.Config = true, t
	}
	switch c.SASL.Mechanism {
	case "":
	case sarama.SASLTypePlaintext:
		s.Net.SASL.Enable, s.Net.SASL.Mechanism = true, sarama.SASLTypePlaintext
		s.Net.SASL.User, s.Net.SASL.Password = c.SASL.Username, c.SASL.Password
	default:
		return nil, fmt.Errorf("kafka.sasl.mechanism %q is not supported: use PLAIN, over TLS, or certificates", c.SASL.Mechanism)
	}
	if err := s.Validate(); err != nil {
		return nil, fmt.Errorf("settings of kafka: %w", err)
	}
	return s, nil
}

func tlsConfig(c config.KafkaTLS) (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("kafka.tls.ca_file: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("kafka.tls.ca_file: %s has no certificate in PEM", c.CAFile)
		}
	}
	if c.Certificate != "" {
		pair, err := tls.LoadX509KeyPair(c.Certificate, c.Key)
		if err != nil {
			return nil, fmt.Errorf("kafka.tls.certificate and kafka.tls.key: %w", err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return t, nil
}

// config is a copy of what all clients have in common.
func (t *Transport) config() *sarama.Config {
	c := *t.base
	c.MetricRegistry = sarama.NewConfig().MetricRegistry
	return &c
}

// ask connects to the broker for questions. It fails when there is none.
func (t *Transport) ask() (sarama.Client, error) {
	c := t.config()
	c.Metadata.Full = true // otherwise the client asks for nothing yet
	return t.dial(c)
}

// dial makes a client with these settings.
func (t *Transport) dial(c *sarama.Config) (sarama.Client, error) {
	client, err := sarama.NewClient(t.o.Config.Addresses, c)
	if err != nil {
		return nil, fmt.Errorf("reach kafka at %v: %w", t.o.Config.Addresses, err)
	}
	return client, nil
}

// publishing returns the client for ephemeral messages, and connects it when that has not happened.
func (t *Transport) publishing() (sarama.Client, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, errClosed
	}
	if t.client != nil {
		return t.client, nil
	}
	c := t.config()
	c.Producer.RequiredAcks = sarama.WaitForLocal
	c.Producer.Retry.Max = 1
	c.ChannelBufferSize = 1024
	client, err := t.dial(c)
	if err != nil {
		return nil, err
	}
	t.client = client
	return client, nil
}

var errClosed = errors.New("the connection to kafka is closed")

// Ready tells why nothing can be carried now: the broker does not answer.
func (t *Transport) Ready(ctx context.Context) error {
	answer := make(chan error, 1)
	go func() {
		client, err := t.ask()
		if err == nil {
			err = client.Close()
		}
		answer <- err
	}()
	select {
	case err := <-answer:
		if err != nil {
			return fmt.Errorf("kafka does not answer: %w: is it running, and is kafka.addresses right?", err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("kafka has not answered: %w", ctx.Err())
	}
}

// closeFor is how long a process that ends waits for its last ephemeral messages. A broker that is away, or was wiped, may take none of
// them for many seconds; they may be lost.
const closeFor = time.Second

// Close ends the connections that Relay, Follow and Subscribe do not end themselves. It is called after those have returned.
func (t *Transport) Close() error {
	t.mu.Lock()
	t.closed = true
	waiting, client := t.ephemeral, t.client
	t.ephemeral, t.client = nil, nil
	t.mu.Unlock()
	if waiting != nil {
		close(waiting)
	}
	sent := make(chan struct{})
	go func() {
		t.producers.Wait()
		close(sent)
	}()
	select {
	case <-sent:
	case <-time.After(closeFor):
		t.o.Log.Debug("the last ephemeral messages are not waited for")
	}
	if client != nil {
		if err := client.Close(); err != nil {
			return fmt.Errorf("close kafka: %w", err)
		}
	}
	return nil
}

// topic is what Kafka calls a topic.
func (t *Transport) topic(name string) string { return t.o.Config.TopicPrefix + name }

type metrics struct {
	produced *prometheus.CounterVec
	errors   *prometheus.CounterVec
	rereads  *prometheus.CounterVec
	holder   *prometheus.GaugeVec
}

func newMetrics() metrics {
	counter := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "dendrite_kafka_" + name, Help: help}, []string{"topic"})
	}
	return metrics{
		produced: counter("produced_records_total", "Records that the relay has produced."),
		errors:   counter("relay_errors_total", "Times that the relay had to connect anew."),
		rereads:  counter("position_reads_total", "Times that the last record of a partition was read to know where to go on."),
		holder: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "dendrite_kafka_relay", Help: "1 where this process relays the log of a component."},
			[]string{"log"}),
	}
}

func (m *metrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.produced, m.errors, m.rereads, m.holder}
}

// outage logs the beginning and the end of what may fail again and again, and says how long to wait in between.
type outage struct {
	log  *logrus.Entry
	what string
	wait time.Duration
}

// failed tells how long to wait before the next attempt.
func (o *outage) failed(err error) time.Duration {
	if o.wait == 0 {
		o.wait = firstBackoff
		o.log.WithError(err).Warn(o.what + " is interrupted")
		return o.wait
	}
	o.wait = min(2*o.wait, maxBackoff)
	o.log.WithError(err).WithField("again_in", o.wait).Debug(o.what + " is still interrupted")
	return o.wait
}

func (o *outage) over() {
	if o.wait != 0 {
		o.wait = 0
		o.log.Info(o.what + " goes on")
	}
}

// pause waits, or until ctx ends.
func pause(ctx context.Context, wait time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(wait):
	}
}
