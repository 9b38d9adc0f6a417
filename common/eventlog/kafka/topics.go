package kafka

import (
	"fmt"
	"time"

	"github.com/IBM/sarama"

	"github.com/matrix-org/dendrite/common/eventlog"
)

const (
	ephemeralPartitions = 4
	ephemeralRetention  = "300000" // ms
)

// ensure creates the topic of a log where it is missing, and makes sure that it has the partitions that the log has.
func (t *Transport) ensure(topic string) error {
	return t.create(topic, &sarama.TopicDetail{NumPartitions: eventlog.Partitions, ReplicationFactor: t.o.Config.ReplicationFactor})
}

// ensureEphemeral creates the topic of ephemeral messages where it is missing.
func (t *Transport) ensureEphemeral(topic string) error {
	retention := ephemeralRetention
	return t.create(topic, &sarama.TopicDetail{NumPartitions: ephemeralPartitions, ReplicationFactor: t.o.Config.ReplicationFactor,
		ConfigEntries: map[string]*string{"retention.ms": &retention, "segment.ms": &retention}})
}

// create asks the controller itself: a client asks on for every topic that it was ever asked about, and fails when one is missing.
func (t *Transport) create(topic string, detail *sarama.TopicDetail) error {
	client, err := t.ask()
	if err != nil {
		return err
	}
	defer client.Close() //nolint:errcheck // nothing is under way
	controller, err := client.Controller()
	if err != nil {
		return fmt.Errorf("find the controller of kafka: %w", err)
	}
	requested := false
	deadline := time.Now().Add(netTimeout)
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, 500*time.Millisecond) {
		partitions, ready, err := t.describe(controller, topic)
		switch {
		case err != nil:
			return fmt.Errorf("topic %s: %w", topic, err)
		case partitions == 0 && !requested:
			if err := t.request(controller, topic, detail); err != nil {
				return err
			}
			requested = true
		case partitions != 0 && partitions != int(detail.NumPartitions):
			return fmt.Errorf("topic %s of kafka has %d partitions, it must have %d: delete it and it is made anew, nothing is lost",
				topic, partitions, detail.NumPartitions)
		case ready && (!requested || led(client, topic, partitions)):
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("topic %s of kafka: some of its partitions have no leader", topic)
		}
		time.Sleep(wait)
	}
}

// led tells whether the brokers that lead the partitions of a new topic know that they do.
func led(client sarama.Client, topic string, partitions int) bool {
	all := make([]int32, partitions)
	for p := range all {
		all[p] = int32(p)
	}
	if client.RefreshMetadata(topic) != nil {
		return false
	}
	groups, err := byLeader(client, topic, all)
	if err != nil {
		return false
	}
	for leader, led := range groups {
		if _, err := offsets(leader, topic, led, sarama.OffsetNewest); err != nil {
			return false
		}
	}
	return true
}

// describe tells how many partitions a topic has, 0 if it does not exist, and whether all have a leader.
func (t *Transport) describe(controller *sarama.Broker, topic string) (partitions int, ready bool, err error) {
	answer, err := controller.GetMetadata(sarama.NewMetadataRequest(t.base.Version, []string{topic}))
	if err != nil {
		return 0, false, err
	}
	for _, found := range answer.Topics {
		switch {
		case found.Name != topic:
		case found.Err == sarama.ErrUnknownTopicOrPartition:
			return 0, false, nil
		case found.Err != sarama.ErrNoError && found.Err != sarama.ErrLeaderNotAvailable:
			return 0, false, found.Err
		default:
			ready = true
			for _, p := range found.Partitions {
				ready = ready && p.Err == sarama.ErrNoError && p.Leader >= 0
			}
			return len(found.Partitions), ready && len(found.Partitions) > 0, nil
		}
	}
	return 0, false, sarama.ErrIncompleteResponse
}

func (t *Transport) request(controller *sarama.Broker, topic string, detail *sarama.TopicDetail) error {
	answer, err := controller.CreateTopics(&sarama.CreateTopicsRequest{Version: 2, Timeout: netTimeout / 2,
		TopicDetails: map[string]*sarama.TopicDetail{topic: detail}})
	if err != nil {
		return fmt.Errorf("create the topic %s: %w", topic, err)
	}
	failed, has := answer.TopicErrors[topic]
	if has && failed.Err != sarama.ErrNoError && failed.Err != sarama.ErrTopicAlreadyExists {
		return fmt.Errorf("create the topic %s with %d replicas: %w", topic, detail.ReplicationFactor, failed)
	}
	return nil
}
