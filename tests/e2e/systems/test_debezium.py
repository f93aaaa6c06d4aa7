"""Debezium: the changes of a PostgreSQL table, captured through a kill of the worker, add up to the table."""

import json

import pytest
from broker import wait_until
from clients import create_topic
from confluent_kafka import Consumer, TopicPartition
from connect import Worker
from java import maven_jars
from postgres import Postgres

pytestmark = pytest.mark.slow


def replayed(broker, topic):
    """The table that the topic's changes lead to: {id: item}."""
    consumer = Consumer({"bootstrap.servers": broker.address, "group.id": "check", "enable.partition.eof": True, "isolation.level": "read_committed"})
    consumer.assign([TopicPartition(topic, 0, 0)])
    rows = {}
    while True:
        message = consumer.poll(30)
        assert message is not None
        if message.error():
            consumer.close()
            return rows
        if message.value() is not None:
            key, change = json.loads(message.key())["id"], json.loads(message.value())
            if change["after"] is None:
                rows.pop(key, None)
            else:
                rows[key] = change["after"]["item"]


def test_changes_of_a_table_through_a_crash(broker, tmp_path):
    create_topic(broker, "shop.public.orders", segment_bytes=65536)
    jars = maven_jars("debezium")
    json_converter = {"key_converter": "org.apache.kafka.connect.json.JsonConverter", "value_converter": "org.apache.kafka.connect.json.JsonConverter",
                      "key_converter_schemas_enable": "false", "value_converter_schemas_enable": "false"}
    settings = {name.replace("_", "."): value for name, value in json_converter.items()}
    with Postgres() as postgres, Worker(tmp_path, broker, plugin_path=jars.parent, exactly_once_source_support="enabled") as worker:
        postgres.sql("create table orders (id int primary key, item text); insert into orders select n, 'item ' || n from generate_series(1, 500) n")
        worker.connect("orders", "io.debezium.connector.postgresql.PostgresConnector", **{
            "database.hostname": "127.0.0.1", "database.port": str(postgres.port), "database.user": "siltstone", "database.dbname": "postgres",
            "topic.prefix": "shop", "table.include.list": "public.orders", "plugin.name": "pgoutput", **settings})
        wait_until(lambda: len(replayed(broker, "shop.public.orders")) == 500, "the snapshot", 60)
        postgres.sql("insert into orders select n, 'item ' || n from generate_series(501, 900) n")
        worker.java.kill()
        postgres.sql("update orders set item = item || ' changed' where id % 3 = 0; delete from orders where id % 10 = 0")
        worker.start()
        table = {int(line.split("|")[0]): line.split("|")[1] for line in postgres.sql("select id, item from orders").splitlines()}
        wait_until(lambda: replayed(broker, "shop.public.orders") == table, "the changes add up to the table", 90)
