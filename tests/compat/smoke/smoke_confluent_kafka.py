"""Smoke test of confluent-kafka (current librdkafka). Usage: smoke_confluent_kafka.py BOOTSTRAP"""

import sys
import time

import confluent_kafka as ck
from confluent_kafka import admin as ck_admin

from checks import PARTITIONS, RECORDS, Checks, equal, eventually

bootstrap = sys.argv[1]
checks = Checks("confluent-kafka")
topic = checks.topic
group = f"{topic}-group"
admin = ck_admin.AdminClient({"bootstrap.servers": bootstrap})


def produce(codec, partition, records, **config):
    failures = []
    producer = ck.Producer({"bootstrap.servers": bootstrap, "compression.type": codec, "acks": "all", "linger.ms": 5, **config})
    for key, value, headers in records:
        producer.produce(topic, value, key, partition, lambda e, _m: e and failures.append(e), headers=headers)
    equal(producer.flush(20), 0, "undelivered records")
    equal(failures, [], "delivery failures")


def consumer(**config):
    return ck.Consumer({
        "bootstrap.servers": bootstrap, "group.id": group, "enable.auto.commit": False,
        "auto.offset.reset": "earliest", "session.timeout.ms": 10000, **config,
    })


def read(source, count, timeout_s=20):
    messages = []
    deadline = time.monotonic() + timeout_s
    while len(messages) < count and time.monotonic() < deadline:
        for message in source.consume(count - len(messages), 0.2):
            if message.error():
                raise AssertionError(message.error())
            messages.append(message)
    equal(len(messages), count, "records read")
    return messages


def triple(message):
    return message.key(), message.value(), message.headers() or []


def at_rest(source):
    """Wait a moment: no record may follow."""
    equal([triple(m) for m in source.consume(1, 0.3)], [], "records after the last")


with checks.check("create-topic"):
    for future in admin.create_topics([ck_admin.NewTopic(topic, PARTITIONS, 1)]).values():
        future.result(20)
    eventually("topic is visible", lambda: topic in admin.list_topics(timeout=10).topics)

with checks.check("create-topic-twice-fails"):
    try:
        list(admin.create_topics([ck_admin.NewTopic(topic, PARTITIONS, 1)]).values())[0].result(20)
        raise AssertionError("no error")
    except ck.KafkaException as error:
        equal(error.args[0].code(), ck.KafkaError.TOPIC_ALREADY_EXISTS, "error")

codecs = ["none", "gzip", "snappy", "lz4", "zstd"]
for index, codec in enumerate(codecs):
    with checks.check(f"produce-{codec}"):
        produce(codec, 0, RECORDS)
        reader = consumer()
        reader.assign([ck.TopicPartition(topic, 0, index * len(RECORDS))])
        equal([triple(m) for m in read(reader, len(RECORDS))], RECORDS, "records")
        reader.close()

with checks.check("produce-idempotent"):
    produce("lz4", 1, RECORDS * 5, **{"enable.idempotence": True, "batch.num.messages": 10})

with checks.check("produce-right-after-create"):
    # Nothing waits for the 40 partitions to be visible: an idempotent producer must neither hang nor lose order (KAFKA-15591).
    wide = f"{topic}-wide"
    producer = ck.Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 1, "topic.metadata.refresh.interval.ms": 500})
    for future in admin.create_topics([ck_admin.NewTopic(wide, 40, 1)]).values():
        future.result(20)
    for number in range(400):
        producer.produce(wide, b"%d" % number, partition=number % 40)
    equal(producer.flush(20), 0, "undelivered records")
    reader = consumer()
    reader.assign([ck.TopicPartition(wide, n, 0) for n in range(40)])
    values = [(m.partition(), int(m.value())) for m in read(reader, 400)]
    reader.close()
    equal([[v for p, v in values if p == n] for n in range(40)], [list(range(n, 400, 40)) for n in range(40)], "records by partition")
    list(admin.delete_topics([wide]).values())[0].result(20)

total = len(codecs) * len(RECORDS) + 5 * len(RECORDS)

with checks.check("group-consume-commit"):
    reader = consumer()
    reader.subscribe([topic])
    read(reader, total)
    at_rest(reader)
    reader.commit(offsets=[
        ck.TopicPartition(topic, p.partition, p.offset, "some metadata")
        for p in reader.position(reader.assignment()) if p.offset >= 0
    ], asynchronous=False)
    reader.close()

with checks.check("group-rejoin-from-commit"):
    produce("snappy", 2, RECORDS)
    reader = consumer()
    reader.subscribe([topic])
    equal({m.partition() for m in read(reader, len(RECORDS))}, {2}, "partitions with new records")
    at_rest(reader)
    committed = reader.committed([ck.TopicPartition(topic, 0)], timeout=10)[0]
    equal((committed.offset, committed.metadata), (len(codecs) * len(RECORDS), "some metadata"), "committed")
    reader.close()

with checks.check("group-two-members-cooperative"):
    config = {"group.id": f"{group}-two", "partition.assignment.strategy": "cooperative-sticky"}
    first, second = consumer(**config), consumer(**config)
    first.subscribe([topic])
    second.subscribe([topic])

    def shared():
        first.consume(1, 0.1), second.consume(1, 0.1)
        return sorted([len(first.assignment()), len(second.assignment())]) == [1, 2]

    eventually("both members hold partitions", shared, 20)
    first.close()
    eventually("the survivor holds all", lambda: second.consume(1, 0.1) is not None and len(second.assignment()) == PARTITIONS, 20)
    second.close()

with checks.check("seek-offset"):
    reader = consumer()
    reader.assign([ck.TopicPartition(topic, 0, 0)])
    read(reader, 3)
    reader.seek(ck.TopicPartition(topic, 0, 7))
    equal([m.offset() for m in read(reader, 2)], [7, 8], "offsets after seek")
    equal(reader.get_watermark_offsets(ck.TopicPartition(topic, 0), timeout=10), (0, len(codecs) * len(RECORDS)), "watermarks")
    reader.close()

with checks.check("seek-time"):
    reader = consumer()
    reader.assign([ck.TopicPartition(topic, 0, 0)])
    stamps = [m.timestamp()[1] for m in read(reader, len(codecs) * len(RECORDS))]
    wanted = stamps[2 * len(RECORDS)]
    found = reader.offsets_for_times([ck.TopicPartition(topic, 0, wanted)], timeout=10)[0].offset
    equal(found, next(n for n, stamp in enumerate(stamps) if stamp >= wanted), "offset for time")
    late = reader.offsets_for_times([ck.TopicPartition(topic, 0, max(stamps) + 1000)], timeout=10)[0].offset
    equal(late, ck.OFFSET_END, "offset for a time after the last record")
    reader.close()

with checks.check("list-describe-topic"):
    described = admin.describe_topics(ck.TopicCollection([topic]))[topic].result(10)
    equal(len(described.partitions), PARTITIONS, "partitions")
    configs = list(admin.describe_configs([ck_admin.ConfigResource("topic", topic)]).values())[0].result(10)
    equal(configs["cleanup.policy"].value, "delete", "cleanup.policy")
    equal(len(admin.describe_cluster().result(10).nodes), 1, "nodes")

with checks.check("alter-config"):
    resource = ck_admin.ConfigResource("topic", topic, incremental_configs=[
        ck_admin.ConfigEntry("retention.ms", "123456789", incremental_operation=ck_admin.AlterConfigOpType.SET)])
    list(admin.incremental_alter_configs([resource]).values())[0].result(10)
    eventually("the new value is described", lambda: list(admin.describe_configs(
        [ck_admin.ConfigResource("topic", topic)]).values())[0].result(10)["retention.ms"].value == "123456789")

with checks.check("create-partitions"):
    list(admin.create_partitions([ck_admin.NewPartitions(topic, PARTITIONS + 1)]).values())[0].result(10)
    eventually("the new partition is visible", lambda: len(admin.list_topics(topic, 10).topics[topic].partitions) == PARTITIONS + 1)

with checks.check("list-describe-group"):
    equal(group in {g.group_id for g in admin.list_consumer_groups().result(10).valid}, True, "group is listed")
    described = list(admin.describe_consumer_groups([group]).values())[0].result(10)
    equal(described.state, ck.ConsumerGroupState.EMPTY, "state")
    offsets = list(admin.list_consumer_group_offsets([ck.ConsumerGroupTopicPartitions(group)]).values())[0].result(10)
    equal({p.partition for p in offsets.topic_partitions} >= {0, 1}, True, "committed partitions")

with checks.check("delete-records"):
    list(admin.delete_records([ck.TopicPartition(topic, 0, 5)]).values())[0].result(10)
    reader = consumer()
    equal(reader.get_watermark_offsets(ck.TopicPartition(topic, 0), timeout=10)[0], 5, "low watermark")
    reader.close()

with checks.check("delete-group"):
    list(admin.delete_consumer_groups([group]).values())[0].result(10)

with checks.check("delete-topic"):
    list(admin.delete_topics([topic]).values())[0].result(20)
    eventually("topic is gone", lambda: topic not in admin.list_topics(timeout=10).topics)

checks.finish()
