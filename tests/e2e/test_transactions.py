"""Transactions as a user runs them, with crashes and tiers. F and I numbers are the project's faults and invariants."""

import threading

from broker import wait_until
from clients import create_topic, produce
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient


def transactional(broker, transactional_id, **config):
    producer = Producer({"bootstrap.servers": broker.address, "transactional.id": transactional_id, "linger.ms": 0, "batch.size": 8192, **config})
    producer.init_transactions(60)
    return producer


def transaction(producer, topic, values, *, partitions=1, commit=True):
    producer.begin_transaction()
    for number, value in enumerate(values):
        producer.produce(topic, value=value, partition=number % partitions)
    producer.flush(60)
    (producer.commit_transaction if commit else producer.abort_transaction)(60)


def read(broker, topic, partitions=1, isolation="read_committed"):
    """Everything from offset 0 that a reader of the isolation level sees: the values, in the order of each partition."""
    consumer = Consumer({"bootstrap.servers": broker.address, "group.id": "reader", "enable.auto.commit": False, "auto.offset.reset": "error",
                         "enable.partition.eof": True, "check.crcs": True, "isolation.level": isolation})
    consumer.assign([TopicPartition(topic, index, 0) for index in range(partitions)])
    values, at_end = [], set()
    while len(at_end) < partitions:
        message = consumer.poll(30)
        assert message is not None, f"no progress after {len(values)} records"
        if message.error():
            assert message.error().name() == "_PARTITION_EOF", message.error()
            at_end.add(message.partition())
        else:
            values.append(message.value())
    consumer.close()
    return values


def numbered(name, count, size=200):
    return [b"%s-%06d" % (name.encode(), number) + b"." * size for number in range(count)]


def test_part_of_a_transaction_in_the_bucket_reads_as_one(make_broker):
    """I19, I22: transactions that span many segments, of which the older lie in the bucket only, read the same from offset 0 in every tier,
    before and after a kill."""
    broker = make_broker(settings={"log.retention.check.interval.ms": 200})
    with broker:
        create_topic(broker, "tiered", segment_bytes=32768, local_retention_ms=1)
        producer = transactional(broker, "tiered")
        kept, all_values = [], []
        for round_number in range(6):
            values = numbered(f"round{round_number}", 400)
            commit = round_number % 2 == 0
            transaction(producer, "tiered", values, commit=commit)
            all_values += values
            kept += values if commit else []
        # One that stays open: what is above its first offset may not be uploaded, nor read by read_committed.
        other = transactional(broker, "open")
        other.begin_transaction()
        opened = numbered("open", 300)
        for value in opened:
            other.produce("tiered", value=value)
        other.flush(60)
        wait_until(lambda: broker.metric("local_dropped_bytes") > 300_000, "segments are in the bucket only")
        assert read(broker, "tiered") == kept
        assert read(broker, "tiered", isolation="read_uncommitted") == all_values + opened
        broker.kill()
        broker.start()
        assert read(broker, "tiered") == kept
        other.abort_transaction(60)
        assert read(broker, "tiered") == kept
        assert read(broker, "tiered", isolation="read_uncommitted") == all_values + opened
        late = numbered("late", 300)
        transaction(producer, "tiered", late)
        wait_until(lambda: broker.metric("upload_lag_bytes") == 0, "the rest is in the bucket too")
        assert read(broker, "tiered") == kept + late


def test_kill_9_in_the_middle_of_transactions(broker):
    """F1, I19: the broker dies again and again under a transactional producer over two partitions; a transaction is there whole, once, or not
    at all, and one whose commit was acknowledged is there."""
    create_topic(broker, "kill", 2, segment_bytes=65536, local_retention_ms=1)
    acknowledged, attempted, stop = [], [], threading.Event()

    def run():
        producer = transactional(broker, "kill", **{"message.timeout.ms": 50000, "transaction.timeout.ms": 60000})
        number = 0
        while not stop.is_set():
            values = numbered(f"txn{number:05}", 10, size=20)
            attempted.append(values)
            try:
                transaction(producer, "kill", values, partitions=2)
                acknowledged.append(values)
            except KafkaException as failure:
                error = failure.args[0]
                if error.txn_requires_abort():
                    producer.abort_transaction(60)
                else:
                    producer = transactional(broker, "kill")
            number += 1

    worker = threading.Thread(target=run)
    worker.start()
    for round_number in range(4):
        before = len(acknowledged)
        wait_until(lambda: len(acknowledged) > before + 20, f"round {round_number}: transactions commit")
        broker.kill()
        broker.start()
    before = len(acknowledged)
    wait_until(lambda: len(acknowledged) > before + 5, "transactions commit again", 60)
    stop.set()
    worker.join(120)
    assert not worker.is_alive()
    seen = read(broker, "kill", 2)
    assert len(seen) == len(set(seen)), "I8: a record was stored twice"
    found = set(seen)
    for values in attempted:
        there = sum(value in found for value in values)
        assert there in (0, len(values)), f"I19: {there} of {len(values)} records of a transaction are visible"
    lost = [values[0] for values in acknowledged if values[0] not in found]
    assert not lost, f"{len(lost)} acknowledged transactions are gone"


def test_consume_transform_produce_is_exactly_once(broker):
    """C11: offsets committed in transactions, the worker and the broker killed under it: each input gives one output."""
    create_topic(broker, "input", 2)
    create_topic(broker, "output", 2)
    inputs = numbered("in", 600, size=10)
    produce(broker, "input", inputs)
    done = threading.Event()

    def worker(limit):
        """Copies until `limit` transactions are through, then vanishes with one open."""
        consumer = Consumer({"bootstrap.servers": broker.address, "group.id": "copy", "enable.auto.commit": False, "auto.offset.reset": "earliest",
                             "isolation.level": "read_committed", "session.timeout.ms": 6000})
        consumer.subscribe(["input"])
        producer = transactional(broker, "copy")
        copied, idle = 0, 0
        while idle < 8:
            messages = [message for message in consumer.consume(25, 1) if not message.error()]
            idle = 0 if messages else idle + 1
            if not messages:
                continue
            producer.begin_transaction()
            for message in messages:
                producer.produce("output", value=message.value(), partition=message.partition())
            producer.send_offsets_to_transaction(consumer.position(consumer.assignment()), consumer.consumer_group_metadata(), 60)
            if copied == limit:
                producer.flush(30)
                consumer.close()
                return
            producer.commit_transaction(60)
            copied += 1
        consumer.close()
        done.set()

    for limit in (2, 4):
        worker(limit)
        broker.kill()
        broker.start()
    worker(10_000)
    assert done.is_set()
    wait_until(lambda: len(read(broker, "output", 2)) >= len(inputs), "the last markers are written")
    assert sorted(read(broker, "output", 2)) == sorted(inputs)


def test_a_crashed_producers_transaction_is_aborted_in_time(make_broker):
    """F9, I20: readers of committed records are held up for the transaction's timeout and no longer."""
    broker = make_broker(settings={"transaction.abort.timed.out.transaction.cleanup.interval.ms": 200})
    with broker:
        create_topic(broker, "open")
        crashed = transactional(broker, "crashed", **{"transaction.timeout.ms": 2000})
        crashed.begin_transaction()
        crashed.produce("open", b"never to be seen")
        crashed.flush(30)
        transaction(transactional(broker, "sound"), "open", [b"seen"])
        assert read(broker, "open") == [], "the open transaction holds the last stable offset back"
        wait_until(lambda: read(broker, "open") == [b"seen"], "the abandoned transaction is aborted")
        admin = AdminClient({"bootstrap.servers": broker.address})
        assert "__transaction_state" in admin.list_topics(timeout=30).topics
