// Smoke test of franz-go. Usage: franz-go BOOTSTRAP
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"siltstone/smoke/checks"
)

var (
	tally   = checks.New("franz-go")
	records = checks.Records()
	count   = int64(len(records))
)

func client(opts ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(os.Args[1]), kgo.DefaultProduceTopic(tally.Topic),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.MetadataMinAge(50 * time.Millisecond),
		kgo.FetchMaxWait(200 * time.Millisecond),
	}, opts...)...)
}

// produce sends all records to one partition and returns the first one's offset.
func produce(ctx context.Context, partition int32, opts ...kgo.Opt) (int64, error) {
	cl, err := client(append(opts, kgo.ProducerLinger(5*time.Millisecond))...)
	if err != nil {
		return 0, err
	}
	defer cl.Close()
	var out []*kgo.Record
	for _, r := range records {
		record := &kgo.Record{Key: r.Key, Value: r.Value, Partition: partition}
		for _, h := range r.Headers {
			record.Headers = append(record.Headers, kgo.RecordHeader{Key: h.Name, Value: h.Value})
		}
		out = append(out, record)
	}
	results := cl.ProduceSync(ctx, out...)
	if err := results.FirstErr(); err != nil {
		return 0, err
	}
	return results[0].Record.Offset, nil
}

// poll reads exactly `wanted` records.
func poll(ctx context.Context, cl *kgo.Client, wanted int) ([]*kgo.Record, error) {
	var got []*kgo.Record
	for len(got) < wanted {
		fetches := cl.PollRecords(ctx, wanted-len(got))
		if err := fetches.Err(); err != nil {
			return nil, fmt.Errorf("after %d of %d records: %w", len(got), wanted, err)
		}
		got = append(got, fetches.Records()...)
	}
	return got, nil
}

func atRest(ctx context.Context, cl *kgo.Client) error {
	ctx, cancel := context.WithTimeout(ctx, 400*time.Millisecond)
	defer cancel()
	return checks.Equal("records after the last", cl.PollFetches(ctx).NumRecords(), 0)
}

func from(partition int32, offset kgo.Offset) kgo.Opt {
	return kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{tally.Topic: {partition: offset}})
}

func read(ctx context.Context, wanted int, opts ...kgo.Opt) ([]*kgo.Record, error) {
	cl, err := client(opts...)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	return poll(ctx, cl, wanted)
}

func plain(from []*kgo.Record) (out []checks.Record) {
	for _, r := range from {
		record := checks.Record{Key: r.Key, Value: r.Value}
		for _, h := range r.Headers {
			record.Headers = append(record.Headers, checks.Header{Name: h.Key, Value: h.Value})
		}
		out = append(out, record)
	}
	return out
}

var codecs = []struct {
	name  string
	codec kgo.CompressionCodec
}{
	{"none", kgo.NoCompression()}, {"gzip", kgo.GzipCompression()}, {"snappy", kgo.SnappyCompression()},
	{"lz4", kgo.Lz4Compression()}, {"zstd", kgo.ZstdCompression()},
}

func check(name string, body func(ctx context.Context) error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	tally.Check(name, func() error { return body(ctx) })
}

func produceChecks() {
	for i, c := range codecs {
		check("produce-"+c.name, func(ctx context.Context) error {
			// franz-go is idempotent by default.
			offset, err := produce(ctx, 0, kgo.ProducerBatchCompression(c.codec))
			if err != nil {
				return err
			}
			if err := checks.Equal("base offset", offset, int64(i)*count); err != nil {
				return err
			}
			got, err := read(ctx, len(records), from(0, kgo.NewOffset().At(offset)))
			if err != nil {
				return err
			}
			return checks.Same(plain(got), records)
		})
	}
	check("produce-not-idempotent", func(ctx context.Context) error {
		_, err := produce(ctx, 1, kgo.DisableIdempotentWrite(), kgo.RequiredAcks(kgo.LeaderAck()))
		return err
	})
}

func groupChecks() {
	group := []kgo.Opt{
		kgo.ConsumerGroup(tally.Group), kgo.ConsumeTopics(tally.Topic), kgo.DisableAutoCommit(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.SessionTimeout(10 * time.Second),
	}
	consume := func(ctx context.Context, wanted int) ([]*kgo.Record, error) {
		cl, err := client(group...)
		if err != nil {
			return nil, err
		}
		defer cl.Close()
		got, err := poll(ctx, cl, wanted)
		if err != nil {
			return nil, err
		}
		if err := atRest(ctx, cl); err != nil {
			return nil, err
		}
		return got, cl.CommitUncommittedOffsets(ctx)
	}
	check("group-consume-commit", func(ctx context.Context) error {
		_, err := consume(ctx, (len(codecs)+1)*len(records))
		return err
	})
	check("group-rejoin-from-commit", func(ctx context.Context) error {
		if _, err := produce(ctx, 2); err != nil {
			return err
		}
		got, err := consume(ctx, len(records))
		for _, r := range got {
			err = errors.Join(err, checks.Equal("partition", r.Partition, 2))
		}
		return err
	})
}

func seekChecks(admin *kadm.Client) {
	check("seek-offset", func(ctx context.Context) error {
		got, err := read(ctx, 2, from(0, kgo.NewOffset().At(7)))
		if err != nil {
			return err
		}
		return checks.Equal("offset after seek", got[1].Offset, 8)
	})
	check("seek-time", func(ctx context.Context) error {
		all, err := read(ctx, len(codecs)*len(records), from(0, kgo.NewOffset().AtStart()))
		if err != nil {
			return err
		}
		stamp := all[2*count].Timestamp
		var first int64
		for all[first].Timestamp.Before(stamp) {
			first++
		}
		listed, err := admin.ListOffsetsAfterMilli(ctx, stamp.UnixMilli(), tally.Topic)
		if err != nil {
			return err
		}
		offset, _ := listed.Lookup(tally.Topic, 0)
		got, err := read(ctx, 1, from(0, kgo.NewOffset().AfterMilli(stamp.UnixMilli())))
		if err != nil {
			return err
		}
		return errors.Join(checks.Equal("listed offset for time", offset.Offset, first), checks.Equal("offset after seek", got[0].Offset, first))
	})
}

func describeChecks(admin *kadm.Client) {
	check("list-describe-topic", func(ctx context.Context) error {
		topics, err := admin.ListTopics(ctx, tally.Topic)
		if err != nil {
			return err
		}
		described, err := admin.DescribeTopicConfigs(ctx, tally.Topic)
		if err != nil {
			return err
		}
		policy := ""
		for _, c := range described[0].Configs {
			if c.Key == "cleanup.policy" {
				policy = c.MaybeValue()
			}
		}
		return errors.Join(checks.Equal("partitions", len(topics[tally.Topic].Partitions), checks.Partitions), checks.Equal("cleanup.policy", policy, "delete"))
	})
	check("describe-log-dirs", func(ctx context.Context) error {
		dirs, err := admin.DescribeAllLogDirs(ctx, nil)
		if err != nil {
			return err
		}
		found := false
		for _, broker := range dirs {
			err = errors.Join(err, broker.Error())
			broker.EachPartition(func(p kadm.DescribedLogDirPartition) { found = found || p.Topic == tally.Topic })
		}
		return errors.Join(err, checks.Equal("topic is in a log dir", found, true))
	})
	check("list-describe-group", func(ctx context.Context) error {
		listed, err := admin.ListGroups(ctx)
		if err != nil {
			return err
		}
		described, err := admin.DescribeGroups(ctx, tally.Group)
		if err != nil {
			return err
		}
		offsets, err := admin.FetchOffsets(ctx, tally.Group)
		if err != nil {
			return err
		}
		at, _ := offsets.Lookup(tally.Topic, 0)
		_, isListed := listed[tally.Group]
		return errors.Join(checks.Equal("group is listed", isListed, true), checks.Equal("state", described[tally.Group].State, "Empty"),
			checks.Equal("committed offset", at.At, int64(len(codecs))*count))
	})
}

func deleteChecks(admin *kadm.Client) {
	check("delete-records", func(ctx context.Context) error {
		offsets := kadm.Offsets{}
		offsets.AddOffset(tally.Topic, 0, 5, -1)
		deleted, err := admin.DeleteRecords(ctx, offsets)
		if err != nil {
			return err
		}
		got, _ := deleted.Lookup(tally.Topic, 0)
		return errors.Join(got.Err, checks.Equal("low watermark", got.LowWatermark, 5))
	})
	check("delete-group", func(ctx context.Context) error {
		deleted, err := admin.DeleteGroups(ctx, tally.Group)
		return errors.Join(err, deleted[tally.Group].Err)
	})
	check("delete-topic", func(ctx context.Context) error {
		deleted, err := admin.DeleteTopics(ctx, tally.Topic)
		if err := errors.Join(err, deleted[tally.Topic].Err); err != nil {
			return err
		}
		return checks.Eventually("topic is gone", func() (bool, error) {
			topics, err := admin.ListTopics(ctx, tally.Topic)
			return errors.Is(topics[tally.Topic].Err, kerr.UnknownTopicOrPartition), err
		})
	})
}

func main() {
	cl, err := client()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	admin := kadm.NewClient(cl)
	check("create-topic", func(ctx context.Context) error {
		if _, err := admin.CreateTopic(ctx, checks.Partitions, 1, nil, tally.Topic); err != nil {
			return err
		}
		if _, err := admin.CreateTopic(ctx, checks.Partitions, 1, nil, tally.Topic); !errors.Is(err, kerr.TopicAlreadyExists) {
			return fmt.Errorf("created twice: %v", err)
		}
		return checks.Eventually("topic is visible", func() (bool, error) {
			topics, err := admin.ListTopics(ctx, tally.Topic)
			return len(topics[tally.Topic].Partitions) == checks.Partitions, err
		})
	})
	produceChecks()
	groupChecks()
	seekChecks(admin)
	describeChecks(admin)
	deleteChecks(admin)
	tally.Finish()
}
