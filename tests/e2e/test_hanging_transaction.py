"""A transaction that its coordinator does not know of: Kafka's own tool finds it and ends it (WriteTxnMarkers by the Java admin client)."""

import socket
import struct

import crc32c
from broker import wait_until
from clients import create_topic
from confluent_kafka import Consumer, TopicPartition
from systems.java import Java
from test_transactions import read

TRANSACTIONAL = 0x10


def transactional_batch(producer_id, epoch, value):
    """One record of a transaction, as a record batch."""
    varint = lambda number: bytes([number << 1])
    body = bytes([0, 0, 0, 1]) + varint(len(value)) + value + varint(0)
    record = varint(len(body)) + body
    checked = struct.pack(">hiqqqhii", TRANSACTIONAL, 0, 0, 0, producer_id, epoch, 0, 1) + record
    batch = struct.pack(">ibI", 0, 2, crc32c.crc32c(checked)) + checked
    return struct.pack(">qi", 0, len(batch)) + batch


def produce_v3(broker, topic, batch):
    """A Produce request by hand, as no client sends one for a partition that it did not add; the error code."""
    text = lambda word: struct.pack(">h", len(word)) + word.encode()
    body = struct.pack(">hhi", 0, 3, 1) + text("by hand") + text("nobody") + struct.pack(">hii", -1, 10_000, 1) + text(topic)
    body += struct.pack(">iii", 1, 0, len(batch)) + batch
    with socket.create_connection(("127.0.0.1", broker.port)) as connection:
        connection.sendall(struct.pack(">i", len(body)) + body)
        answer = connection.makefile("rb")
        payload = answer.read(struct.unpack(">i", answer.read(4))[0])
    return struct.unpack_from(">h", payload, 4 + 4 + 2 + len(topic) + 4 + 4)[0]


def stable_end(broker, topic):
    """Where read_committed ends."""
    consumer = Consumer({"bootstrap.servers": broker.address, "group.id": "watcher", "isolation.level": "read_committed", "enable.partition.eof": True})
    consumer.assign([TopicPartition(topic, 0, 0)])
    message = consumer.poll(20)
    while not message.error():
        message = consumer.poll(20)
    consumer.close()
    return message.offset()


def run(tmp_path, tool, *arguments):
    """Runs one of Kafka's Java tools; its lines."""
    with Java(tmp_path, f"org.apache.kafka.tools.{tool}", *arguments) as running:
        wait_until(lambda: running.process.poll() is not None, "the tool ends", 60)
        assert running.process.returncode == 0, running.log()
        return [line.split() for line in running.log().splitlines()]


def test_transactions_version_2_needs_no_verification(make_broker, tmp_path):
    """Partitions join by being produced to, whether or not older clients' are verified."""
    with make_broker(settings={"transaction.partition.verification.enable": "false"}) as broker:
        create_topic(broker, "t")
        load = ["--topic", "t", "--num-records", "10", "--record-size", "10", "--throughput", "-1"]
        run(tmp_path, "ProducerPerformance", *load, "--bootstrap-server", broker.address, "--transactional-id", "version-2")
        assert stable_end(broker, "t") == 11, "the records and their marker are behind the last stable offset"


def test_find_hanging_finds_it_and_abort_ends_it(make_broker, tmp_path):
    with make_broker(settings={"transaction.partition.verification.enable": "false"}) as broker:
        create_topic(broker, "t")
        assert produce_v3(broker, "t", transactional_batch(4711, 3, b"lost")) == 0
        assert stable_end(broker, "t") == 0, "it holds the last stable offset back"

        tool = lambda *arguments: run(tmp_path, "TransactionsCommand", "--bootstrap-server", broker.address, *arguments)
        found = tool("find-hanging", "--topic", "t", "--max-transaction-timeout", "0")
        titles, row = found[-2], found[-1]
        hanging = dict(zip(titles, row))
        assert (hanging["Topic"], hanging["Partition"], hanging["ProducerId"], hanging["ProducerEpoch"]) == ("t", "0", "4711", "3"), found
        tool("abort", "--topic", "t", "--partition", "0", "--start-offset", "0")
        wait_until(lambda: stable_end(broker, "t") == 2, "the record and its marker are behind the last stable offset")
        assert read(broker, "t") == [] and read(broker, "t", isolation="read_uncommitted") == [b"lost"]
        assert tool("find-hanging", "--topic", "t", "--max-transaction-timeout", "0")[-1][0] == "Topic", "nothing hangs any more"
