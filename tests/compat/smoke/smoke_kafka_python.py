"""Smoke test of kafka-python. Usage: smoke_kafka_python.py BOOTSTRAP"""

import sys
import time

import kafka
from kafka import TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import TopicAlreadyExistsError
from kafka.structs import OffsetAndMetadata

import checks as shared
from checks import PARTITIONS, Checks, equal, eventually

# This client refuses to send a null header value.
RECORDS = [(key, value, [h for h in headers if h[1] is not None]) for key, value, headers in shared.RECORDS]

bootstrap = sys.argv[1]
checks = Checks("kafka-python")
topic = checks.topic
group = f"{topic}-group"
admin = kafka.KafkaAdminClient(bootstrap_servers=bootstrap)
part = [TopicPartition(topic, n) for n in range(PARTITIONS)]


def produce(codec, partition, records, **config):
    producer = kafka.KafkaProducer(bootstrap_servers=bootstrap, acks="all", linger_ms=5, compression_type=codec, **config)
    futures = [producer.send(topic, value, key, headers, partition) for key, value, headers in records]
    offsets = [future.get(20).offset for future in futures]
    producer.close()
    return offsets


def consumer(*topics, **config):
    return kafka.KafkaConsumer(*topics, bootstrap_servers=bootstrap, group_id=group, enable_auto_commit=False,
                               auto_offset_reset="earliest", session_timeout_ms=10000, **config)


def read(source, count, timeout_s=20):
    records = []
    deadline = time.monotonic() + timeout_s
    while len(records) < count and time.monotonic() < deadline:
        for batch in source.poll(200, max_records=count - len(records)).values():
            records.extend(batch)
    equal(len(records), count, "records read")
    return records


def triple(record):
    return record.key, record.value, list(record.headers)


def at_rest(source):
    equal(source.poll(300, max_records=1), {}, "records after the last")


with checks.check("create-topic"):
    admin.create_topics({topic: {"num_partitions": PARTITIONS, "replication_factor": 1}})
    eventually("topic is visible", lambda: topic in admin.list_topics())

with checks.check("create-topic-twice-fails"):
    try:
        admin.create_topics({topic: {"num_partitions": PARTITIONS, "replication_factor": 1}})
        raise AssertionError("no error")
    except TopicAlreadyExistsError:
        pass

codecs = [None, "gzip", "snappy", "lz4", "zstd"]
for index, codec in enumerate(codecs):
    with checks.check(f"produce-{codec or 'none'}"):
        first = index * len(RECORDS)
        equal(produce(codec, 0, RECORDS), list(range(first, first + len(RECORDS))), "offsets")
        reader = consumer()
        reader.assign(part[:1])
        reader.seek(part[0], first)
        equal([triple(r) for r in read(reader, len(RECORDS))], RECORDS, "records")
        reader.close()

with checks.check("produce-idempotent"):
    produce("lz4", 1, RECORDS * 3, enable_idempotence=True, batch_size=2048)

total = (len(codecs) + 3) * len(RECORDS)

with checks.check("group-consume-commit"):
    reader = consumer(topic)
    read(reader, total)
    at_rest(reader)
    reader.commit({p: OffsetAndMetadata(reader.position(p), "some metadata", -1) for p in reader.assignment()})
    reader.close()

with checks.check("group-rejoin-from-commit"):
    produce("snappy", 2, RECORDS)
    reader = consumer(topic)
    equal({r.partition for r in read(reader, len(RECORDS))}, {2}, "partitions with new records")
    at_rest(reader)
    committed = reader.committed(part[0], metadata=True)
    equal((committed.offset, committed.metadata), (len(codecs) * len(RECORDS), "some metadata"), "committed")
    reader.close()

with checks.check("seek-offset"):
    reader = consumer()
    reader.assign(part[:1])
    reader.seek_to_beginning(part[0])
    read(reader, 3)
    reader.seek(part[0], 7)
    equal([r.offset for r in read(reader, 2)], [7, 8], "offsets after seek")
    equal(reader.beginning_offsets(part[:1])[part[0]], 0, "beginning")
    equal(reader.end_offsets(part[:1])[part[0]], len(codecs) * len(RECORDS), "end")
    reader.close()

with checks.check("seek-time"):
    reader = consumer()
    reader.assign(part[:1])
    reader.seek(part[0], 0)
    stamps = [r.timestamp for r in read(reader, len(codecs) * len(RECORDS))]
    wanted = stamps[2 * len(RECORDS)]
    found = reader.offsets_for_times({part[0]: wanted})[part[0]]
    equal(found.offset, next(n for n, stamp in enumerate(stamps) if stamp >= wanted), "offset for time")
    equal(reader.offsets_for_times({part[0]: max(stamps) + 1000})[part[0]], None, "offset for a time after the last record")
    reader.close()

with checks.check("list-describe-topic"):
    equal(len(admin.describe_topics([topic])[0]["partitions"]), PARTITIONS, "partitions")
    configs = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)], config_filter="all")
    equal(configs["topic"][topic]["cleanup.policy"]["value"], "delete", "cleanup.policy")
    equal(len(admin.describe_cluster()["brokers"]), 1, "brokers")

with checks.check("list-describe-group"):
    equal(group in {g["group_id"] for g in admin.list_groups()}, True, "group is listed")
    equal(str(admin.describe_groups([group])[group]["group_state"]).split(".")[-1].lower(), "empty", "state")
    offsets = admin.list_group_offsets({group: None})[group]
    equal(offsets[part[0]].offset, len(codecs) * len(RECORDS), "committed offset")

with checks.check("delete-records"):
    admin.delete_records({part[0]: 5})
    reader = consumer()
    equal(reader.beginning_offsets(part[:1])[part[0]], 5, "beginning")
    reader.close()

with checks.check("delete-group"):
    admin.delete_groups([group])
    eventually("group is gone", lambda: group not in {g["group_id"] for g in admin.list_groups()})

with checks.check("delete-topic"):
    admin.delete_topics([topic])
    eventually("topic is gone", lambda: topic not in admin.list_topics())

checks.finish()
