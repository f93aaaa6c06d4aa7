"""A few lines around the clients, so that the tests read as stories."""

import subprocess

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic


def create_topic(broker, name, partitions=1, **config):
    config = {key.replace("_", "."): str(value) for key, value in config.items()}
    admin = AdminClient({"bootstrap.servers": broker.address})
    admin.create_topics([NewTopic(name, partitions, 1, config=config)])[name].result(timeout=30)


def kcat(broker, *arguments, stdin=None):
    done = subprocess.run(["kcat", "-b", broker.address, *arguments], input=stdin, capture_output=True, timeout=60, check=True)
    return done.stdout


def produce(broker, topic, values, *, partition=-1, key=None, **config):
    """Sends every value and returns {(partition, offset): value} of what was acknowledged. Never raises: a broker may be killed under it."""
    acknowledged = {}

    def delivered(error, message):
        if not error:
            acknowledged[message.partition(), message.offset()] = message.value()

    producer = Producer({"bootstrap.servers": broker.address, "enable.idempotence": True, "linger.ms": 5, "batch.size": 16384,
                         "message.timeout.ms": 30000, **config})
    for value in values:
        while True:
            try:
                producer.produce(topic, value=value, key=key, partition=partition, on_delivery=delivered)
                break
            except BufferError:
                producer.poll(0.05)
        producer.poll(0)
    producer.flush(60)
    return acknowledged


def read_all(broker, topic, partitions=1, start=0, limit_s=30):
    """Everything from `start` to the end of each partition: {(partition, offset): value}. Fails if nothing comes for `limit_s`."""
    consumer = Consumer({"bootstrap.servers": broker.address, "group.id": "reader", "enable.auto.commit": False, "auto.offset.reset": "error",
                         "enable.partition.eof": True, "check.crcs": True})
    consumer.assign([TopicPartition(topic, index, start) for index in range(partitions)])
    read, at_end = {}, set()
    while len(at_end) < partitions:
        message = consumer.poll(limit_s)
        assert message is not None, f"no progress after {len(read)} records"
        if message.error():
            assert message.error().name() == "_PARTITION_EOF", message.error()
            at_end.add(message.partition())
        else:
            read[message.partition(), message.offset()] = message.value()
    consumer.close()
    return read


def watermarks(broker, topic, partition=0):
    consumer = Consumer({"bootstrap.servers": broker.address, "group.id": "watermarks"})
    low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=30)
    consumer.close()
    return low, high
