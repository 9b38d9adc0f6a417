package kafka

import (
	"fmt"
	"strconv"

	"github.com/IBM/sarama"
)

// Headers of a record.
const (
	headerLog = "log" // the id of the log
	headerSeq = "seq" // the sequence in the partition
)

// last is the last record of a partition of Kafka.
type last struct {
	offset int64 // of the record; where there is none, the one before the next
	found  bool
	logID  string
	seq    int64
}

// byLeader groups partitions by the broker that leads them.
func byLeader(client sarama.Client, topic string, partitions []int32) (map[*sarama.Broker][]int32, error) {
	groups := make(map[*sarama.Broker][]int32)
	for _, p := range partitions {
		leader, err := client.Leader(topic, p)
		if err != nil {
			return nil, fmt.Errorf("leader of %s/%d: %w", topic, p, err)
		}
		groups[leader] = append(groups[leader], p)
	}
	return groups, nil
}

// lastRecords reads the last record of some partitions, with three requests to each broker that leads any of them.
func lastRecords(client sarama.Client, topic string, partitions []int32) (map[int32]last, error) {
	groups, err := byLeader(client, topic, partitions)
	if err != nil {
		return nil, err
	}
	found := make(map[int32]last, len(partitions))
	for leader, partitions := range groups {
		if err := lastOfLeader(leader, topic, partitions, found); err != nil {
			return nil, fmt.Errorf("last records of %s: %w", topic, err)
		}
	}
	return found, nil
}

func lastOfLeader(leader *sarama.Broker, topic string, partitions []int32, found map[int32]last) error {
	newest, err := offsets(leader, topic, partitions, sarama.OffsetNewest)
	if err != nil {
		return err
	}
	oldest, err := offsets(leader, topic, partitions, sarama.OffsetOldest)
	if err != nil {
		return err
	}
	wanted := make(map[int32]int64)
	for _, p := range partitions {
		if oldest[p] < newest[p] {
			wanted[p] = newest[p] - 1
		} else {
			found[p] = last{offset: newest[p] - 1}
		}
	}
	// A response may be too small for all: what it left out is asked for again.
	for len(wanted) > 0 {
		before := len(wanted)
		if err := fetchLast(leader, topic, wanted, found); err != nil {
			return err
		}
		if len(wanted) == before {
			return fmt.Errorf("%d partitions have a last record, and it cannot be read", before)
		}
	}
	return nil
}

func offsets(leader *sarama.Broker, topic string, partitions []int32, which int64) (map[int32]int64, error) {
	request := &sarama.OffsetRequest{Version: 1}
	for _, p := range partitions {
		request.AddBlock(topic, p, which, 1)
	}
	answer, err := leader.GetAvailableOffsets(request)
	if err != nil {
		return nil, fmt.Errorf("ask for offsets: %w", err)
	}
	found := make(map[int32]int64, len(partitions))
	for _, p := range partitions {
		block := answer.GetBlock(topic, p)
		if block == nil {
			return nil, fmt.Errorf("offset of partition %d: %w", p, sarama.ErrIncompleteResponse)
		}
		if block.Err != sarama.ErrNoError {
			return nil, fmt.Errorf("offset of partition %d: %w", p, block.Err)
		}
		found[p] = block.Offset
	}
	return found, nil
}

// fetchLast reads the records at the wanted offsets, and takes out of wanted what it found.
func fetchLast(leader *sarama.Broker, topic string, wanted map[int32]int64, found map[int32]last) error {
	// Version 4 is the oldest that brokers still know. It wants nothing but an answer at once.
	request := &sarama.FetchRequest{Version: 4, MaxWaitTime: 1, MinBytes: 1, MaxBytes: 16 << 20}
	for p, offset := range wanted {
		request.AddBlock(topic, p, offset, 1<<20, -1)
	}
	answer, err := leader.Fetch(request)
	if err != nil {
		return fmt.Errorf("fetch: %w", err)
	}
	for p, offset := range wanted {
		block := answer.GetBlock(topic, p)
		if block == nil {
			continue
		}
		if block.Err != sarama.ErrNoError {
			return fmt.Errorf("fetch partition %d: %w", p, block.Err)
		}
		for _, set := range block.RecordsSet {
			batch := set.RecordBatch
			if batch == nil {
				continue
			}
			for _, r := range batch.Records {
				if batch.FirstOffset+r.OffsetDelta != offset {
					continue
				}
				l := last{offset: offset, found: true}
				if l.logID, l.seq, err = headers(r.Headers); err != nil {
					return fmt.Errorf("record %d of partition %d: %w", offset, p, err)
				}
				found[p] = l
				delete(wanted, p)
			}
		}
	}
	return nil
}

func headers(all []*sarama.RecordHeader) (logID string, seq int64, err error) {
	for _, h := range all {
		switch string(h.Key) {
		case headerLog:
			logID = string(h.Value)
		case headerSeq:
			seq, err = strconv.ParseInt(string(h.Value), 10, 64)
		}
	}
	if err != nil || logID == "" || seq < 1 {
		return "", 0, fmt.Errorf("it was not written by a relay: does another program use the topic? Choose another kafka.topic_prefix")
	}
	return logID, seq, nil
}
