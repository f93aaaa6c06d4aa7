// Smoke test of kafka-go. Usage: kafka-go BOOTSTRAP
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/segmentio/kafka-go"

	"siltstone/smoke/checks"
)

var (
	tally   = checks.New("kafka-go")
	records = checks.Records()
	client  = &kafka.Client{Addr: kafka.TCP(os.Args[1]), Timeout: 10 * time.Second}
)

// partition is a balancer that always answers itself.
type partition int

func (p partition) Balance(kafka.Message, ...int) int { return int(p) }

func produce(ctx context.Context, to partition, codec kafka.Compression) error {
	writer := &kafka.Writer{
		Addr: kafka.TCP(os.Args[1]), Topic: tally.Topic, Balancer: to, Compression: codec,
		RequiredAcks: kafka.RequireAll, BatchTimeout: 5 * time.Millisecond, BatchSize: len(records),
	}
	var messages []kafka.Message
	for _, r := range records {
		message := kafka.Message{Key: r.Key, Value: r.Value}
		for _, h := range r.Headers {
			message.Headers = append(message.Headers, kafka.Header{Key: h.Name, Value: h.Value})
		}
		messages = append(messages, message)
	}
	return errors.Join(writer.WriteMessages(ctx, messages...), writer.Close())
}

func plain(from []kafka.Message) (out []checks.Record) {
	for _, m := range from {
		record := checks.Record{Key: m.Key, Value: m.Value}
		for _, h := range m.Headers {
			record.Headers = append(record.Headers, checks.Header{Name: h.Key, Value: h.Value})
		}
		out = append(out, record)
	}
	return out
}

func read(ctx context.Context, offset int64, wanted int) ([]kafka.Message, error) {
	reader := kafka.NewReader(kafka.ReaderConfig{Brokers: []string{os.Args[1]}, Topic: tally.Topic, MaxWait: 200 * time.Millisecond, MaxBytes: 10e6})
	defer reader.Close()
	if err := reader.SetOffset(offset); err != nil {
		return nil, err
	}
	return take(ctx, reader.ReadMessage, wanted)
}

func take(ctx context.Context, next func(context.Context) (kafka.Message, error), wanted int) (got []kafka.Message, err error) {
	for len(got) < wanted {
		message, err := next(ctx)
		if err != nil {
			return got, fmt.Errorf("after %d of %d records: %w", len(got), wanted, err)
		}
		got = append(got, message)
	}
	return got, nil
}

func consumeGroup(ctx context.Context, wanted int) ([]kafka.Message, error) {
	reader := kafka.NewReader(kafka.ReaderConfig{
		Brokers: []string{os.Args[1]}, GroupID: tally.Group, Topic: tally.Topic, StartOffset: kafka.FirstOffset, MaxWait: 200 * time.Millisecond,
		MaxBytes: 10e6, JoinGroupBackoff: 100 * time.Millisecond, SessionTimeout: 10 * time.Second,
	})
	got, err := take(ctx, reader.FetchMessage, wanted)
	if err == nil {
		short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		defer cancel()
		if extra, stop := reader.FetchMessage(short); stop == nil {
			err = fmt.Errorf("a record after the last: %v", extra.Offset)
		}
		err = errors.Join(err, reader.CommitMessages(ctx, got...))
	}
	return got, errors.Join(err, reader.Close())
}

func check(name string, body func(ctx context.Context) error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	tally.Check(name, func() error { return body(ctx) })
}

var codecs = []kafka.Compression{0, kafka.Gzip, kafka.Snappy, kafka.Lz4, kafka.Zstd}

func consumeChecks() {
	for i, codec := range codecs {
		check("produce-"+[]string{"none", "gzip", "snappy", "lz4", "zstd"}[i], func(ctx context.Context) error {
			if err := produce(ctx, 0, codec); err != nil {
				return err
			}
			got, err := read(ctx, int64(i*len(records)), len(records))
			if err != nil {
				return err
			}
			wanted := append([]checks.Record(nil), records...)
			wanted[3] = checks.Record{} // This client gives empty keys and values back as null.
			return checks.Same(plain(got), wanted)
		})
	}
	check("group-consume-commit", func(ctx context.Context) error {
		_, err := consumeGroup(ctx, len(codecs)*len(records))
		return err
	})
	check("group-rejoin-from-commit", func(ctx context.Context) error {
		if err := produce(ctx, 2, kafka.Snappy); err != nil {
			return err
		}
		got, err := consumeGroup(ctx, len(records))
		for _, m := range got {
			err = errors.Join(err, checks.Equal("partition", m.Partition, 2))
		}
		return err
	})
	check("seek-offset", func(ctx context.Context) error {
		got, err := read(ctx, 7, 2)
		if err != nil {
			return err
		}
		return checks.Equal("offset after seek", got[1].Offset, 8)
	})
	check("seek-time", func(ctx context.Context) error {
		all, err := read(ctx, 0, len(codecs)*len(records))
		if err != nil {
			return err
		}
		stamp := all[2*len(records)].Time
		first := 0
		for all[first].Time.Before(stamp) {
			first++
		}
		reader := kafka.NewReader(kafka.ReaderConfig{Brokers: []string{os.Args[1]}, Topic: tally.Topic, MaxWait: 200 * time.Millisecond, MaxBytes: 10e6})
		defer reader.Close()
		if err := reader.SetOffsetAt(ctx, stamp); err != nil {
			return err
		}
		got, err := reader.ReadMessage(ctx)
		return errors.Join(err, checks.Equal("offset for time", got.Offset, int64(first)))
	})
}

func adminChecks() {
	check("list-describe-topic", func(ctx context.Context) error {
		metadata, err := client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{tally.Topic}})
		if err != nil {
			return err
		}
		described, err := client.DescribeConfigs(ctx, &kafka.DescribeConfigsRequest{Resources: []kafka.DescribeConfigRequestResource{
			{ResourceType: kafka.ResourceTypeTopic, ResourceName: tally.Topic, ConfigNames: []string{"cleanup.policy"}}}})
		if err != nil {
			return err
		}
		return errors.Join(checks.Equal("partitions", len(metadata.Topics[0].Partitions), checks.Partitions),
			checks.Equal("cleanup.policy", described.Resources[0].ConfigEntries[0].ConfigValue, "delete"))
	})
	check("list-describe-group", func(ctx context.Context) error {
		listed, err := client.ListGroups(ctx, &kafka.ListGroupsRequest{})
		if err != nil {
			return err
		}
		found := false
		for _, g := range listed.Groups {
			found = found || g.GroupID == tally.Group
		}
		described, err := client.DescribeGroups(ctx, &kafka.DescribeGroupsRequest{GroupIDs: []string{tally.Group}})
		if err != nil {
			return err
		}
		offsets, err := client.ConsumerOffsets(ctx, kafka.TopicAndGroup{Topic: tally.Topic, GroupId: tally.Group})
		return errors.Join(err, checks.Equal("group is listed", found, true), checks.Equal("state", described.Groups[0].GroupState, "Empty"),
			checks.Equal("committed offset", offsets[0], int64(len(codecs)*len(records))))
	})
	check("delete-group", func(ctx context.Context) error {
		deleted, err := client.DeleteGroups(ctx, &kafka.DeleteGroupsRequest{GroupIDs: []string{tally.Group}})
		if err != nil {
			return err
		}
		return deleted.Errors[tally.Group]
	})
	check("delete-topic", func(ctx context.Context) error {
		deleted, err := client.DeleteTopics(ctx, &kafka.DeleteTopicsRequest{Topics: []string{tally.Topic}})
		if err != nil {
			return err
		}
		if err := deleted.Errors[tally.Topic]; err != nil {
			return err
		}
		return checks.Eventually("topic is gone", func() (bool, error) {
			metadata, err := client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{tally.Topic}})
			return err == nil && errors.Is(metadata.Topics[0].Error, kafka.UnknownTopicOrPartition), err
		})
	})
}

func main() {
	kafka.DefaultTransport = &kafka.Transport{MetadataTTL: 100 * time.Millisecond}
	check("create-topic", func(ctx context.Context) error {
		created, err := client.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{Topic: tally.Topic, NumPartitions: checks.Partitions, ReplicationFactor: 1}}})
		if err != nil {
			return err
		}
		if err := created.Errors[tally.Topic]; err != nil {
			return err
		}
		return checks.Eventually("topic is visible", func() (bool, error) {
			connection, err := kafka.DialContext(ctx, "tcp", os.Args[1])
			if err != nil {
				return false, err
			}
			defer connection.Close()
			partitions, err := connection.ReadPartitions(tally.Topic)
			return len(partitions) == checks.Partitions, err
		})
	})
	consumeChecks()
	adminChecks()
	tally.Finish()
}
