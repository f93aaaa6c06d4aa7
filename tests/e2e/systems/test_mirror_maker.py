"""MirrorMaker 2 from a real Apache Kafka to Siltstone and back: records, their keys and headers, topic settings, group offsets."""

import subprocess

import pytest
from broker import wait_until
from clients import create_topic
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource
from java import COMPAT, Java

pytestmark = pytest.mark.slow


class Kafka:
    """Apache Kafka on a directory."""

    def __init__(self, root):
        self.data = root / "kafka"

    def __enter__(self):
        started = subprocess.run([COMPAT / "kafka.sh", "start", "--port", "0", "--data", self.data, "--heap", "512m"], stdout=subprocess.PIPE, text=True, check=True)
        self.address = f"127.0.0.1:{started.stdout.split()[1]}"
        return self

    def __exit__(self, *_):
        subprocess.run([COMPAT / "kafka.sh", "stop", "--data", self.data, "--kill"], check=True)


def fill(broker, topic, name, count):
    producer = Producer({"bootstrap.servers": broker.address, "enable.idempotence": True})
    for number in range(count):
        producer.produce(topic, key=f"key {number % 7}", value=f"{name} {number}", headers=[("origin", name), ("origin", "again")])
    assert producer.flush(30) == 0


def records(broker, topic, count):
    consumer = Consumer({"bootstrap.servers": broker.address, "group.id": "check", "auto.offset.reset": "earliest", "isolation.level": "read_committed"})
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(2)])
    read = {}
    while len(read) < count:
        message = consumer.poll(30)
        assert message is not None, f"{len(read)} of {count} records of {topic}"
        read[message.partition(), message.offset()] = (message.key(), message.value(), message.headers())
    consumer.close()
    return read


def commit(broker, group, topic, offset):
    consumer = Consumer({"bootstrap.servers": broker.address, "group.id": group})
    consumer.commit(offsets=[TopicPartition(topic, 0, offset)], asynchronous=False)
    consumer.close()


def committed(broker, group, topic):
    admin = AdminClient({"bootstrap.servers": broker.address})
    answer = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])[group].result(timeout=30)
    return {(one.topic, one.partition): one.offset for one in answer.topic_partitions}.get((topic, 0))


def test_from_kafka_to_siltstone_and_back(broker, tmp_path):
    with Kafka(tmp_path) as kafka:
        create_topic(kafka, "there", 2, retention_ms=123456789)
        create_topic(broker, "here", 2, retention_ms=98765432)
        fill(kafka, "there", "kafka", 500)
        fill(broker, "here", "siltstone", 500)
        commit(kafka, "readers", "there", 10)
        properties = tmp_path / "mm2.properties"
        properties.write_text("\n".join([
            "clusters=K,S", f"K.bootstrap.servers={kafka.address}", f"S.bootstrap.servers={broker.address}", "K->S.enabled=true", "S->K.enabled=true",
            "K->S.topics=there", "S->K.topics=here", "replication.factor=1", "checkpoints.topic.replication.factor=1", "heartbeats.topic.replication.factor=1",
            "offset-syncs.topic.replication.factor=1", "offset.storage.replication.factor=1", "status.storage.replication.factor=1",
            "config.storage.replication.factor=1", "sync.group.offsets.enabled=true", "emit.checkpoints.interval.seconds=1",
            "sync.group.offsets.interval.seconds=1", "refresh.topics.interval.seconds=2", "refresh.groups.interval.seconds=2", "offset.lag.max=0",
            "sync.topic.configs.interval.seconds=2", "sync.topic.acls.enabled=false", "offset.flush.interval.ms=1000", "tasks.max=1", ""]))
        with Java(tmp_path, "org.apache.kafka.connect.mirror.MirrorMaker", properties, heap="512m"):
            topics = AdminClient({"bootstrap.servers": broker.address})
            wait_until(lambda: "K.there" in topics.list_topics(timeout=10).topics, "the remote topic", 120)
            assert records(broker, "K.there", 500) == records(kafka, "there", 500)
            wait_until(lambda: "S.here" in AdminClient({"bootstrap.servers": kafka.address}).list_topics(timeout=10).topics, "the way back", 120)
            assert records(kafka, "S.here", 500) == records(broker, "here", 500)
            wait_until(lambda: committed(broker, "readers", "K.there"), "the group's offset came across", 60)
        resource = ConfigResource(ConfigResource.Type.TOPIC, "K.there")
        assert topics.describe_configs([resource])[resource].result(timeout=30)["retention.ms"].value == "123456789"
