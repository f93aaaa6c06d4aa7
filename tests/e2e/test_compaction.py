"""Compacted topics as a user sees them: the table that the records make stays, whatever is cleaned and whenever the broker dies."""

import random
import shutil
import threading

from broker import wait_until
from clients import create_topic, watermarks
from confluent_kafka import Consumer, Producer, TopicPartition

import pytest

CLEANER = {"log.cleaner.backoff.ms": 50, "log.retention.check.interval.ms": 200}


@pytest.fixture
def broker(make_broker):
    return make_broker(settings=CLEANER).start()


def send(broker, topic, pairs, **config):
    """Sends key-value pairs in order; what was acknowledged, as (offset, key, value)."""
    acknowledged = []

    def delivered(error, message):
        if not error:
            acknowledged.append((message.offset(), message.key(), message.value()))

    producer = Producer({"bootstrap.servers": broker.address, "enable.idempotence": True, "batch.size": 4096, "message.timeout.ms": 60000, **config})
    for key, value in pairs:
        while True:
            try:
                producer.produce(topic, key=key, value=value, partition=0, on_delivery=delivered)
                break
            except BufferError:
                producer.poll(0.05)
        producer.poll(0)
    assert producer.flush(60) == 0
    return acknowledged


def records(broker, topic, isolation="read_uncommitted"):
    """All that a reader from the beginning gets: (offset, key, value)."""
    consumer = Consumer({"bootstrap.servers": broker.address, "group.id": "reader", "enable.auto.commit": False, "auto.offset.reset": "error",
                         "enable.partition.eof": True, "check.crcs": True, "isolation.level": isolation})
    consumer.assign([TopicPartition(topic, 0, 0)])
    found = []
    while True:
        message = consumer.poll(30)
        assert message is not None, f"no progress after {len(found)} records"
        if message.error():
            assert message.error().name() == "_PARTITION_EOF", message.error()
            consumer.close()
            return found
        found.append((message.offset(), message.key(), message.value()))


def table(pairs):
    """What the records make: the last value of each key, without deleted ones."""
    made = {}
    for _, key, value in sorted(pairs):
        if value is None:
            made.pop(key, None)
        else:
            made[key] = value
    return made


def updates(count, keys, seed):
    rng = random.Random(seed)
    for number in range(count):
        key = b"key-%d" % rng.randrange(keys)
        yield key, None if rng.random() < 0.1 else b"%d-" % number + b"x" * rng.randrange(100)


@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_a_table_survives_cleaning_and_restarts(broker, codec):
    create_topic(broker, "table", cleanup_policy="compact", segment_bytes=30000, min_cleanable_dirty_ratio="0.01", delete_retention_ms=600000)
    sent = send(broker, "table", updates(5000, 50, 1), **{"compression.type": codec})
    wait_until(lambda: len(records(broker, "table")) < 1500, "most of what was overwritten is gone")
    found = records(broker, "table")
    assert table(found) == table(sent)
    assert set(found) <= set(sent), "offsets never change"
    assert watermarks(broker, "table") == (0, 5000)
    broker.stop()
    broker.start()
    assert table(records(broker, "table")) == table(sent)
    sent += send(broker, "table", updates(1000, 50, 2))
    assert table(records(broker, "table")) == table(sent)


def test_tombstones_go_after_their_time(broker):
    create_topic(broker, "graves", cleanup_policy="compact", segment_ms=200, min_cleanable_dirty_ratio="0.01", delete_retention_ms=300)
    send(broker, "graves", [(b"a", b"1"), (b"b", b"1"), (b"a", None)])

    def without_grave():
        send(broker, "graves", [(b"b", b"2")])
        return all(key != b"a" for _, key, _ in records(broker, "graves"))

    wait_until(without_grave, "the tombstone is gone")
    assert table(records(broker, "graves")) == {b"b": b"2"}


def test_kill_9_during_cleaning(make_broker):
    broker = make_broker(settings=CLEANER).start()
    create_topic(broker, "killed", cleanup_policy="compact", segment_bytes=20000, min_cleanable_dirty_ratio="0.01")
    sent = []
    for round_number, point in enumerate(["clean.written", "clean.before-rename", "clean.renamed", "clean.recorded"]):
        broker.stop()
        broker.env["SILTSTONE_FAULTS"] = f"{point}=crash"
        broker.start()
        sender = threading.Thread(target=lambda: sent.extend(send(broker, "killed", updates(3000, 40, round_number))))
        sender.start()
        broker.process.wait(timeout=60)
        del broker.env["SILTSTONE_FAULTS"]
        broker.start()
        sender.join(90)
        assert not sender.is_alive()
        assert table(records(broker, "killed")) == table(sent), point
    assert len(sent) == 12000


def test_a_record_without_a_key_is_refused(broker):
    create_topic(broker, "keys", cleanup_policy="compact")
    errors = []
    producer = Producer({"bootstrap.servers": broker.address})
    producer.produce("keys", value=b"no key", on_delivery=lambda error, _: errors.append(error))
    producer.flush(30)
    assert errors[0].name() == "INVALID_RECORD"


def test_compact_and_delete(broker):
    create_topic(broker, "both", cleanup_policy="compact,delete", segment_bytes=20000, min_cleanable_dirty_ratio="0.01", retention_bytes=30000)
    # Every key is another: nothing to compact, all to delete.
    send(broker, "both", [(b"key-%d" % number, b"x" * 80) for number in range(3000)])
    wait_until(lambda: watermarks(broker, "both")[0] > 1000, "retention raises the log start of a compacted topic, too")
    start = watermarks(broker, "both")[0]
    consumer = Consumer({"bootstrap.servers": broker.address, "group.id": "g", "auto.offset.reset": "earliest"})
    consumer.assign([TopicPartition("both", 0, start)])
    message = consumer.poll(30)
    assert message is not None and not message.error() and message.key() == b"key-%d" % message.offset()
    consumer.close()


def test_aborted_records_are_cleaned_away(broker):
    create_topic(broker, "txn", cleanup_policy="compact", segment_ms=200, min_cleanable_dirty_ratio="0.01")
    producer = Producer({"bootstrap.servers": broker.address, "transactional.id": "t"})
    producer.init_transactions(30)
    for commit in (True, False, True):
        producer.begin_transaction()
        producer.produce("txn", key=b"k", value=b"committed" if commit else b"aborted")
        producer.commit_transaction() if commit else producer.abort_transaction()

    def cleaned():
        send(broker, "txn", [(b"other", b"1")])
        return all(value != b"aborted" for _, _, value in records(broker, "txn"))

    wait_until(cleaned, "the aborted record is gone even for read_uncommitted")
    assert table(records(broker, "txn", "read_committed"))[b"k"] == b"committed"


def test_a_lost_disk_does_not_lose_a_compacted_topic(make_broker):
    """ADR 7: the bucket has a copy that follows compaction; only what was not sealed yet goes with the disk."""
    broker = make_broker(settings={**CLEANER, "offsets.topic.segment.bytes": 5000, "offsets.topic.num.partitions": 1,
                                   "log.cleaner.min.cleanable.ratio": 0.01}).start()
    create_topic(broker, "kept", cleanup_policy="compact", segment_bytes=20000, min_cleanable_dirty_ratio="0.01")
    sent = send(broker, "kept", updates(3000, 40, 1))
    consumer = Consumer({"bootstrap.servers": broker.address, "group.id": "kept", "enable.auto.commit": False})
    for number in range(200):
        consumer.commit(offsets=[TopicPartition("kept", 0, number)], asynchronous=False)
    consumer.close()
    wait_until(lambda: broker.metric("remote_log_bytes") < 60000 and broker.metric("upload_lag_bytes") == 0, "the bucket follows compaction", 60)
    assert broker.metric("remote_segments") > 2
    broker.kill()
    shutil.rmtree(broker.data / "broker")
    broker.start()
    found = records(broker, "kept")
    end = watermarks(broker, "kept")[1]
    assert end > 2000 and set(found) <= set(sent)
    assert table(found) == table([place for place in sent if place[0] < end])
    consumer = Consumer({"bootstrap.servers": broker.address, "group.id": "kept", "enable.auto.commit": False})
    assert consumer.committed([TopicPartition("kept", 0)], timeout=30)[0].offset > 100, "the group's offsets are back"
    consumer.close()
    # And it goes on: what is new is compacted, too.
    lost = [place for place in sent if place[0] >= end]
    sent = [place for place in sent if place[0] < end] + send(broker, "kept", updates(2000, 40, 2))
    wait_until(lambda: broker.metric("log_cleaner_passes") > 0, "cleaning goes on")
    assert table(records(broker, "kept")) == table(sent), f"{len(lost)} records were in the lost tail"


def test_group_offsets_are_compacted(make_broker):
    broker = make_broker(settings={**CLEANER, "offsets.topic.segment.bytes": 10000, "offsets.topic.num.partitions": 1,
                                   "log.cleaner.min.cleanable.ratio": 0.01}).start()
    create_topic(broker, "source")
    send(broker, "source", [(b"k", b"v")] * 10)
    consumer = Consumer({"bootstrap.servers": broker.address, "group.id": "busy", "enable.auto.commit": False})
    for number in range(300):
        consumer.commit(offsets=[TopicPartition("source", 0, number % 10)], asynchronous=False)
    wait_until(lambda: broker.metric("log_cleaner_passes") > 0, "the offsets topic is compacted")
    broker.kill()
    broker.start()
    assert consumer.committed([TopicPartition("source", 0)], timeout=30)[0].offset == 9
    consumer.close()
