// Package eventlog carries what one component has committed to those that follow it: in order, nothing lost, nothing twice,
// whatever is killed.
//
// A component's log lies in its own database. Topic.Append buffers a record in a transaction; at commit the transaction takes
// the counters of the partitions it touches and inserts the records, so that the order of commits is the order of the log, without
// gaps and without late arrivals. The rows are the log. A Transport carries them to consumers: in process by waking those who read
// the rows, or by Kafka, which is a fast path that may lose everything at any time.
//
// A Consumer applies only the record after the last one that it has applied, in one transaction with the move of its offset. It
// reads from the producer what a transport did not bring. A record that can never be applied parks its key: that record and all
// later ones of the key are put aside, and everything else goes on.
package eventlog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"

	"github.com/matrix-org/dendrite/common/sqlutil"
)

// Partitions is how many partitions each topic has. A key always has the same one.
const Partitions = 64

// Partition is the partition of a key.
func Partition(key string) int32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(key)) // a hash takes everything
	return int32(h.Sum32() % Partitions)
}

// Record is a message in its place in the log.
type Record struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Seq       int64  `json:"seq"` // from 1 on, without gaps in a partition
	Key       string `json:"key"`
	Type      string `json:"type"`
	Time      int64  `json:"time"` // ms
	// Value is nil where Decoded is set.
	Value json.RawMessage `json:"value"`
	Trace string          `json:"trace,omitempty"`
	// Decoded is the value itself where the record has not left the process that made it. It is shared: it is only read.
	Decoded any `json:"-"`
}

// MarshalJSON encodes a value that has not been encoded yet, because the record leaves the process.
func (r Record) MarshalJSON() ([]byte, error) {
	value, err := r.value()
	if err != nil {
		return nil, err
	}
	type plain Record
	r.Value = value
	return json.Marshal(plain(r))
}

func (r *Record) value() (json.RawMessage, error) {
	if r.Value != nil {
		return r.Value, nil
	}
	value, err := json.Marshal(r.Decoded)
	if err != nil {
		return nil, fmt.Errorf("encode a %s: %w", r.Type, err)
	}
	return value, nil
}

// Decode reads the value of a record as a *T.
func Decode[T any](r *Record) (*T, error) {
	if v, is := r.Decoded.(*T); is {
		return v, nil
	}
	v := new(T)
	if err := json.Unmarshal(r.Value, v); err != nil {
		return nil, Permanent(fmt.Errorf("record %s/%d/%d of type %s: %w", r.Topic, r.Partition, r.Seq, r.Type, err))
	}
	return v, nil
}

// ReadRequest asks for records of a partition from a sequence on.
type ReadRequest struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	From      int64  `json:"from"`
	Limit     int    `json:"limit"`
}

// ReadResponse has the records, without a gap from the first one asked for on.
type ReadResponse struct {
	LogID   string   `json:"log_id"`
	Head    int64    `json:"head"` // the last sequence that is committed
	Records []Record `json:"records"`
}

// HeadsRequest asks for the heads of all partitions.
type HeadsRequest struct {
	Topic string `json:"topic"`
	// Report tells the producer, in passing, how far a consumer is; nil most of the time.
	Report *Report `json:"report,omitempty"`
}

// Report says how far a consumer is, durably. The producer keeps what comes after: see Topic's Prune.
type Report struct {
	Component string `json:"component"` // of the consumer
	Consumer  string `json:"consumer"`
	LogID     string `json:"log_id"` // of the log that it follows; empty if it has never run
	// Offsets are the last applied sequences of all partitions. -1: it has none, and begins at the oldest record at the earliest.
	Offsets []int64 `json:"offsets"`
}

// HeadsResponse has the last committed sequence of each partition.
type HeadsResponse struct {
	LogID string  `json:"log_id"`
	Heads []int64 `json:"heads"`
	// Pruned, in the answer to a report, are the last sequences that the log no longer has.
	Pruned []int64 `json:"pruned,omitempty"`
}

// Source is a log as its consumers reach it: the producer's own methods, or calls of its contract.
type Source struct {
	Read  func(context.Context, ReadRequest) (ReadResponse, error)
	Heads func(context.Context, HeadsRequest) (HeadsResponse, error)
}

// Appended is a record that is about to be committed.
type Appended struct {
	Partition int32
	Seq       int64
	Key       string
	Type      string
	Time      int64
	Value     any
	Trace     string
}

// Store keeps the records of a topic in a table of the producer's own, when the records are rows that it has anyway.
type Store interface {
	Insert(ctx context.Context, tx *sqlutil.Tx, rows []Appended) error
	// Read returns records from a sequence on, in order.
	Read(ctx context.Context, tx *sqlutil.Tx, partition int32, from int64, limit int) ([]Record, error)
}

type permanent struct{ err error }

func (p *permanent) Error() string { return p.err.Error() }
func (p *permanent) Unwrap() error { return p.err }

// Permanent marks the error of a record that can never be applied. Every other error is waited out.
func Permanent(err error) error { return &permanent{err} }

// IsPermanent tells whether an error is marked as permanent.
func IsPermanent(err error) bool {
	var p *permanent
	return errors.As(err, &p)
}
