package parts

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/IBM/sarama"
)

// Kafka is a broker of one node.
type Kafka struct {
	*Server
	// Address is its host:port.
	Address string
}

const kafkaVersion = "3.9.1"

// kafkaPOM asks Maven for Kafka and all that it needs.
const kafkaPOM = `<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>org.matrix.dendrite</groupId><artifactId>kafka</artifactId><version>1</version>
<dependencies>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>` + kafkaVersion + `</version></dependency>
<dependency><groupId>org.slf4j</groupId><artifactId>slf4j-reload4j</artifactId><version>1.7.36</version></dependency>
</dependencies></project>`

// A broker that was killed comes back when its session has ended, which by default takes 9 s.
const kafkaProperties = `process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:%[2]s
listeners=PLAINTEXT://127.0.0.1:%[1]s,CONTROLLER://127.0.0.1:%[2]s
advertised.listeners=PLAINTEXT://127.0.0.1:%[1]s
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=%[3]s
offsets.topic.replication.factor=1
offsets.topic.num.partitions=8
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
`

const kafkaLog = `log4j.rootLogger=WARN, stdout
log4j.appender.stdout=org.apache.log4j.ConsoleAppender
log4j.appender.stdout.layout=org.apache.log4j.PatternLayout
log4j.appender.stdout.layout.ConversionPattern=%d %p %c: %m%n
`

// NewKafka prepares a broker in a folder, which is made if it is not there; what an existing one holds is used as it is. An empty
// port is any that is free.
func NewKafka(ctx context.Context, dir, port string) (*Kafka, error) {
	java, err := exec.LookPath("java")
	if err != nil {
		return nil, errors.New("kafka: there is no java: install one, as with apt-get install default-jre-headless")
	}
	jars, err := kafkaJars(ctx)
	if err != nil {
		return nil, err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, fmt.Errorf("kafka: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("kafka: %w", err)
	}
	if port == "" {
		if port, err = FreePort(); err != nil {
			return nil, err
		}
	}
	controller, err := FreePort()
	if err != nil {
		return nil, err
	}
	k := &Kafka{Address: "127.0.0.1:" + port}
	properties, log4j, data := filepath.Join(dir, "kraft.properties"), filepath.Join(dir, "log4j.properties"), filepath.Join(dir, "data")
	text := fmt.Sprintf(kafkaProperties, port, controller, data)
	if err := errors.Join(os.WriteFile(properties, []byte(text), 0o644), os.WriteFile(log4j, []byte(kafkaLog), 0o644)); err != nil {
		return nil, fmt.Errorf("kafka: %w", err)
	}
	command := []string{java, "-Xmx512m", "-Dlog4j.configuration=file:" + log4j, "-cp", filepath.Join(jars, "*")}
	if _, err := os.Stat(filepath.Join(data, "meta.properties")); errors.Is(err, os.ErrNotExist) {
		format := append(command[1:len(command):len(command)], "kafka.tools.StorageTool", "format", "-t", "ZGVuZHJpdGUtdGVzdHMtMQ", "-c", properties)
		if err := run(ctx, dir, identity{}, java, format...); err != nil {
			return nil, fmt.Errorf("kafka: %w", err)
		}
	}
	k.Server = &Server{Name: "kafka", Command: append(command, "kafka.Kafka", properties), Dir: dir, Signal: "TERM",
		Log: filepath.Join(dir, "kafka.log"), Probe: func(context.Context) error { return probeKafka(k.Address) }}
	return k, nil
}

// probeKafka asks a broker for its controller, which it has when it can make topics.
func probeKafka(address string) error {
	c := sarama.NewConfig()
	c.Metadata.Retry.Max = 0
	client, err := sarama.NewClient([]string{address}, c)
	if err != nil {
		return fmt.Errorf("kafka: %w", err)
	}
	_, err = client.Controller()
	return errors.Join(err, client.Close())
}

// dropWithin is how long a broker may take to forget topics. It answers when their removal is decided; then it moves the folders of
// one partition after the other out of the way, also those of whoever else removes topics, which takes a busy disk minutes.
const dropWithin = 5 * time.Minute

// DropTopics removes the topics of a broker whose names begin so, because many thousands of partitions make it slow. Nobody may use them
// any more. When it returns, the broker has forgotten them: who makes topics of these names then, gets new ones.
func DropTopics(address, prefix string) error {
	c := sarama.NewConfig()
	c.Metadata.AllowAutoTopicCreation = false
	client, err := sarama.NewClient([]string{address}, c)
	if err != nil {
		return fmt.Errorf("kafka: %w", err)
	}
	var names []string
	pause := 50 * time.Millisecond
	for deadline := time.Now().Add(dropWithin); err == nil; time.Sleep(pause) {
		// A process that was killed may have asked for a topic just before, so each round removes what there is.
		if names, err = topicsOf(client, prefix); err != nil || len(names) == 0 {
			break
		}
		if time.Now().After(deadline) {
			err = fmt.Errorf("kafka still has the topics %s after %v", strings.Join(names, ", "), dropWithin)
			break
		}
		err = deleteTopics(client, names)
		pause = min(2*pause, time.Second)
	}
	return errors.Join(err, client.Close())
}

func topicsOf(client sarama.Client, prefix string) ([]string, error) {
	if err := client.RefreshMetadata(); err != nil {
		return nil, fmt.Errorf("kafka: listing topics: %w", err)
	}
	names, err := client.Topics()
	return slices.DeleteFunc(names, func(name string) bool { return !strings.HasPrefix(name, prefix) }), err
}

// deleteTopics asks for the removal of topics. Those that are gone, or whose removal is not decided in time, are no error.
func deleteTopics(client sarama.Client, names []string) error {
	controller, err := client.Controller()
	if err != nil {
		return fmt.Errorf("kafka: %w", err)
	}
	answer, err := controller.DeleteTopics(sarama.NewDeleteTopicsRequest(client.Config().Version, names, client.Config().Net.ReadTimeout/2))
	if err != nil {
		return fmt.Errorf("kafka: removing topics: %w", err)
	}
	for name, code := range answer.TopicErrorCodes {
		switch code {
		case sarama.ErrNoError, sarama.ErrUnknownTopicOrPartition, sarama.ErrRequestTimedOut:
		default:
			err = errors.Join(err, fmt.Errorf("kafka: removing the topic %s: %w", name, code))
		}
	}
	return err
}

// kafkaJars is the folder with Kafka's programs, downloaded by Maven if it is not there.
func kafkaJars(ctx context.Context) (string, error) {
	cache, err := Cache()
	if err != nil {
		return "", err
	}
	folder := filepath.Join(cache, "kafka-"+kafkaVersion)
	err = inNewFolder(folder, func(dir string) error {
		fmt.Fprintln(os.Stderr, "Downloading Kafka (46 MB) to", folder)
		pom := filepath.Join(dir, "pom.xml")
		if err := os.WriteFile(pom, []byte(kafkaPOM), 0o644); err != nil {
			return err
		}
		err := run(ctx, dir, identity{}, "mvn", "-q", "-B", "-f", pom, "dependency:copy-dependencies", "-DoutputDirectory="+dir)
		if err != nil {
			return fmt.Errorf("maven (apt-get install maven): %w", err)
		}
		if jars, err := filepath.Glob(filepath.Join(dir, "*.jar")); err != nil || len(jars) < 10 {
			return fmt.Errorf("maven brought only %s: %w", strings.Join(jars, ", "), err)
		}
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("getting Kafka: %w", err)
	}
	return folder, nil
}
