// Smoke test of sarama. Usage: sarama BOOTSTRAP
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"sync"
	"time"

	"github.com/IBM/sarama"

	"siltstone/smoke/checks"
)

var (
	tally   = checks.New("sarama")
	records = checks.Records()
	brokers = []string{os.Args[1]}
)

func config() *sarama.Config {
	c := sarama.NewConfig()
	c.Version = sarama.V3_6_0_0
	c.Producer.Return.Successes = true
	c.Producer.RequiredAcks = sarama.WaitForAll
	c.Producer.Partitioner = sarama.NewManualPartitioner
	c.Producer.Flush.Frequency = 5 * time.Millisecond
	c.Consumer.MaxWaitTime = 200 * time.Millisecond
	c.Consumer.Offsets.Initial = sarama.OffsetOldest
	c.Consumer.Offsets.AutoCommit.Enable = false
	c.Consumer.Return.Errors = false
	return c
}

func produce(partition int32, adjust func(*sarama.Config)) (int64, error) {
	c := config()
	adjust(c)
	producer, err := sarama.NewSyncProducer(brokers, c)
	if err != nil {
		return 0, err
	}
	defer producer.Close()
	var messages []*sarama.ProducerMessage
	for _, r := range records {
		message := &sarama.ProducerMessage{Topic: tally.Topic, Partition: partition}
		if r.Key != nil {
			message.Key = sarama.ByteEncoder(r.Key)
		}
		if r.Value != nil {
			message.Value = sarama.ByteEncoder(r.Value)
		}
		for _, h := range r.Headers {
			message.Headers = append(message.Headers, sarama.RecordHeader{Key: []byte(h.Name), Value: h.Value})
		}
		messages = append(messages, message)
	}
	if err := producer.SendMessages(messages); err != nil {
		return 0, err
	}
	return messages[0].Offset, nil
}

func plain(from []*sarama.ConsumerMessage) (out []checks.Record) {
	for _, m := range from {
		record := checks.Record{Key: m.Key, Value: m.Value}
		for _, h := range m.Headers {
			record.Headers = append(record.Headers, checks.Header{Name: string(h.Key), Value: h.Value})
		}
		out = append(out, record)
	}
	return out
}

// read takes `wanted` records of partition 0 from an offset on.
func read(offset int64, wanted int) ([]*sarama.ConsumerMessage, error) {
	consumer, err := sarama.NewConsumer(brokers, config())
	if err != nil {
		return nil, err
	}
	defer consumer.Close()
	partition, err := consumer.ConsumePartition(tally.Topic, 0, offset)
	if err != nil {
		return nil, err
	}
	defer partition.Close()
	return take(partition.Messages(), wanted)
}

func take(from <-chan *sarama.ConsumerMessage, wanted int) (got []*sarama.ConsumerMessage, err error) {
	limit := time.After(20 * time.Second)
	for len(got) < wanted {
		select {
		case m := <-from:
			got = append(got, m)
		case <-limit:
			return got, fmt.Errorf("%d of %d records after 20 s", len(got), wanted)
		}
	}
	return got, nil
}

// member passes what it is given to a channel, and commits it when it leaves.
type member struct {
	messages chan *sarama.ConsumerMessage
}

func (member) Setup(sarama.ConsumerGroupSession) error { return nil }
func (member) Cleanup(session sarama.ConsumerGroupSession) error {
	session.Commit()
	return nil
}
func (m member) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for message := range claim.Messages() {
		session.MarkMessage(message, "some metadata")
		m.messages <- message
	}
	return nil
}

func consumeGroup(wanted int) ([]*sarama.ConsumerMessage, error) {
	group, err := sarama.NewConsumerGroup(brokers, tally.Group, config())
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	m := member{make(chan *sarama.ConsumerMessage, 1000)}
	var running sync.WaitGroup
	running.Go(func() {
		for ctx.Err() == nil {
			if group.Consume(ctx, []string{tally.Topic}, m) != nil {
				time.Sleep(50 * time.Millisecond)
			}
		}
	})
	got, err := take(m.messages, wanted)
	select {
	case extra := <-m.messages:
		err = errors.Join(err, fmt.Errorf("a record after the last: offset %d", extra.Offset))
	case <-time.After(300 * time.Millisecond):
	}
	cancel()
	running.Wait()
	return got, errors.Join(err, group.Close())
}

var codecs = []sarama.CompressionCodec{
	sarama.CompressionNone, sarama.CompressionGZIP, sarama.CompressionSnappy, sarama.CompressionLZ4, sarama.CompressionZSTD,
}

func produceChecks() {
	for i, codec := range codecs {
		tally.Check("produce-"+codec.String(), func() error {
			offset, err := produce(0, func(c *sarama.Config) { c.Producer.Compression = codec })
			if err != nil {
				return err
			}
			if err := checks.Equal("base offset", offset, int64(i*len(records))); err != nil {
				return err
			}
			got, err := read(offset, len(records))
			if err != nil {
				return err
			}
			return checks.Same(plain(got), records)
		})
	}
	tally.Check("produce-idempotent", func() error {
		_, err := produce(1, func(c *sarama.Config) {
			c.Producer.Idempotent = true
			c.Net.MaxOpenRequests = 1
		})
		return err
	})
}

func consumeChecks(client sarama.Client) {
	tally.Check("group-consume-commit", func() error {
		_, err := consumeGroup((len(codecs) + 1) * len(records))
		return err
	})
	tally.Check("group-rejoin-from-commit", func() error {
		if _, err := produce(2, func(*sarama.Config) {}); err != nil {
			return err
		}
		got, err := consumeGroup(len(records))
		for _, m := range got {
			err = errors.Join(err, checks.Equal("partition", m.Partition, 2))
		}
		return err
	})
	tally.Check("seek-offset", func() error {
		got, err := read(7, 2)
		if err != nil {
			return err
		}
		return checks.Equal("offset after seek", got[1].Offset, 8)
	})
	tally.Check("seek-time", func() error {
		all, err := read(sarama.OffsetOldest, len(codecs)*len(records))
		if err != nil {
			return err
		}
		stamp := all[2*len(records)].Timestamp
		first := 0
		for all[first].Timestamp.Before(stamp) {
			first++
		}
		offset, err := client.GetOffset(tally.Topic, 0, stamp.UnixMilli())
		return errors.Join(err, checks.Equal("offset for time", offset, int64(first)))
	})
}

func adminChecks(admin sarama.ClusterAdmin) {
	tally.Check("list-describe-topic", func() error {
		topics, err := admin.ListTopics()
		if err != nil {
			return err
		}
		entries, err := admin.DescribeConfig(sarama.ConfigResource{Type: sarama.TopicResource, Name: tally.Topic})
		policy := ""
		for _, e := range entries {
			if e.Name == "cleanup.policy" {
				policy = e.Value
			}
		}
		return errors.Join(err, checks.Equal("partitions", topics[tally.Topic].NumPartitions, checks.Partitions), checks.Equal("cleanup.policy", policy, "delete"))
	})
	tally.Check("list-describe-group", func() error {
		listed, err := admin.ListConsumerGroups()
		if err != nil {
			return err
		}
		described, err := admin.DescribeConsumerGroups([]string{tally.Group})
		if err != nil {
			return err
		}
		offsets, err := admin.ListConsumerGroupOffsets(tally.Group, map[string][]int32{tally.Topic: {0}})
		if err != nil {
			return err
		}
		block := offsets.GetBlock(tally.Topic, 0)
		_, isListed := listed[tally.Group]
		return errors.Join(checks.Equal("group is listed", isListed, true), checks.Equal("state", described[0].State, "Empty"),
			checks.Equal("committed offset", block.Offset, int64(len(codecs)*len(records))), checks.Equal("metadata", block.Metadata, "some metadata"))
	})
	tally.Check("create-partitions", func() error { return admin.CreatePartitions(tally.Topic, checks.Partitions+1, nil, false) })
	tally.Check("delete-records", func() error { return admin.DeleteRecords(tally.Topic, map[int32]int64{0: 5}) })
	tally.Check("delete-group", func() error { return admin.DeleteConsumerGroup(tally.Group) })
	tally.Check("delete-topic", func() error {
		if err := admin.DeleteTopic(tally.Topic); err != nil {
			return err
		}
		return checks.Eventually("topic is gone", func() (bool, error) {
			topics, err := admin.ListTopics()
			_, there := topics[tally.Topic]
			return !there && err == nil, err
		})
	})
}

func main() {
	sarama.Logger = log.New(io.Discard, "", 0)
	client, err := sarama.NewClient(brokers, config())
	if err == nil {
		var admin sarama.ClusterAdmin
		if admin, err = sarama.NewClusterAdminFromClient(client); err == nil {
			tally.Check("create-topic", func() error {
				if err := admin.CreateTopic(tally.Topic, &sarama.TopicDetail{NumPartitions: checks.Partitions, ReplicationFactor: 1}, false); err != nil {
					return err
				}
				return checks.Eventually("topic is visible", func() (bool, error) {
					topics, err := admin.ListTopics()
					return topics[tally.Topic].NumPartitions == checks.Partitions, err
				})
			})
			produceChecks()
			consumeChecks(client)
			adminChecks(admin)
		}
	}
	if err != nil {
		tally.Check("connect", func() error { return err })
	}
	tally.Finish()
}
