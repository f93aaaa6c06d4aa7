"""Flink SQL and Spark Structured Streaming: lines in, capitals out, with the engine killed on the way and started from its checkpoint."""

import collections
import pathlib

import pytest
from broker import wait_until
from clients import create_topic, produce
from confluent_kafka import Consumer, TopicPartition
from java import Java, maven_jars

pytestmark = pytest.mark.slow
HERE = pathlib.Path(__file__).parent
OPENED = ["lang", "lang.invoke", "lang.reflect", "io", "net", "nio", "util", "util.concurrent", "util.concurrent.atomic"]
OPTIONS = [f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in ["sun.nio.ch", "sun.util.calendar", *(f"java.{name}" for name in OPENED)]]


def lines(first, last):
    return [b"line %d" % number for number in range(first, last)]


def committed(broker):
    """What read_committed sees of `shouted`, counted."""
    consumer = Consumer({"bootstrap.servers": broker.address, "group.id": "check", "isolation.level": "read_committed", "enable.partition.eof": True})
    consumer.assign([TopicPartition("shouted", partition, 0) for partition in range(2)])
    values, at_end = collections.Counter(), 0
    while at_end < 2:
        message = consumer.poll(30)
        assert message is not None
        if message.error():
            at_end += 1
        else:
            values[message.value()] += 1
    consumer.close()
    return values


def shouted(count):
    return collections.Counter(line.upper() for line in lines(0, count))


def start(engine, tmp_path, *arguments):
    return Java(tmp_path, str(HERE / engine / "Shout.java"), *arguments, heap="768m", jars=maven_jars(engine), options=OPTIONS)


def run_through_a_crash(broker, tmp_path, engine, resume, complete):
    for topic in ("lines", "shouted"):
        create_topic(broker, topic, 2, segment_bytes=65536)
    checkpoints = tmp_path / "checkpoints"
    produce(broker, "lines", lines(0, 2000))
    with start(engine, tmp_path, broker.address, checkpoints) as job:
        wait_until(lambda: job.process.poll() is not None or len(committed(broker)) == 2000, f"the first lines: {job.log_file}", 120)
        produce(broker, "lines", lines(2000, 5000))
        wait_until(lambda: job.process.poll() is not None or len(committed(broker)) > 2000, "more lines", 60)
        assert job.process.poll() is None, job.log()[-3000:]
        job.kill()
    with start(engine, tmp_path, broker.address, checkpoints, *resume(checkpoints)) as job:
        produce(broker, "lines", lines(5000, 6000))
        wait_until(lambda: job.process.poll() is not None or complete(committed(broker)), f"all lines: {job.log_file}", 120)
        assert complete(committed(broker)), job.log()[-3000:]


def test_flink_sql_exactly_once(broker, tmp_path):
    def newest(checkpoints):
        return [max(checkpoints.glob("*/chk-*/_metadata"), key=lambda path: int(path.parent.name[4:])).parent]

    run_through_a_crash(broker, tmp_path, "flink", newest, lambda values: values == shouted(6000))


def test_spark_structured_streaming(broker, tmp_path):
    """Spark reads exactly once; its Kafka sink repeats what a crash cut off."""
    run_through_a_crash(broker, tmp_path, "spark", lambda checkpoints: [], lambda values: set(values) == set(shouted(6000)))
