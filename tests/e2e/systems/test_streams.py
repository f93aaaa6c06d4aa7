"""Kafka Streams with exactly_once_v2: a word count that is killed and started again counts every word once."""

import collections
import pathlib
import random

from broker import wait_until
from clients import create_topic, produce
from confluent_kafka import Consumer, TopicPartition
from java import Java

PROGRAM = pathlib.Path(__file__).with_name("WordCount.java")
WORDS = "sand silt clay loam gravel shale slate chalk flint marl".split()


def lines(count, seed):
    chosen = random.Random(seed)
    return [" ".join(chosen.choices(WORDS, k=5)) for _ in range(count)]


def committed_counts(broker):
    """Every committed update of each word, in order."""
    consumer = Consumer({"bootstrap.servers": broker.address, "group.id": "check", "isolation.level": "read_committed", "enable.partition.eof": True,
                         "auto.offset.reset": "earliest"})
    consumer.assign([TopicPartition("counts", partition, 0) for partition in range(2)])
    updates, at_end = collections.defaultdict(list), 0
    while at_end < 2:
        message = consumer.poll(30)
        assert message is not None
        if message.error():
            at_end += 1
        else:
            updates[message.key().decode()].append(int.from_bytes(message.value(), "big"))
    consumer.close()
    return updates


def expected(sent):
    return {word: list(range(1, total + 1)) for word, total in collections.Counter(" ".join(sent).split()).items()}


def test_word_count_exactly_once_through_a_crash(broker, tmp_path):
    for topic in ("lines", "counts"):
        create_topic(broker, topic, 2, segment_bytes=65536)
    sent = lines(1000, 1)
    produce(broker, "lines", [line.encode() for line in sent])
    with Java(tmp_path, str(PROGRAM), broker.address, tmp_path / "state") as application:
        application.wait_for("state RUNNING")
        wait_until(lambda: len(committed_counts(broker)) == len(WORDS), "words are counted")
        more = lines(3000, 2)
        sent += more
        produce(broker, "lines", [line.encode() for line in more])
        application.kill()
    with Java(tmp_path, str(PROGRAM), broker.address, tmp_path / "state") as application:
        application.wait_for("state RUNNING")
        wait_until(lambda: committed_counts(broker) == expected(sent), "every word is counted once", 90)
