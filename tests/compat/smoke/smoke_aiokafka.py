"""Smoke test of aiokafka. Usage: smoke_aiokafka.py BOOTSTRAP"""

import asyncio
import contextlib
import sys

import aiokafka
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.structs import OffsetAndMetadata

from checks import PARTITIONS, RECORDS, Checks, equal

bootstrap = sys.argv[1]
checks = Checks("aiokafka")
topic = checks.topic
group = f"{topic}-group"
part = [TopicPartition(topic, n) for n in range(PARTITIONS)]


async def produce(codec, partition, records, **config):
    producer = aiokafka.AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", linger_ms=5, compression_type=codec, **config)
    await producer.start()
    try:
        futures = [await producer.send(topic, value, key, partition, headers=headers) for key, value, headers in records]
        return [(await asyncio.wait_for(future, 20)).offset for future in futures]
    finally:
        await producer.stop()


@contextlib.asynccontextmanager
async def consumer(*topics, **config):
    source = aiokafka.AIOKafkaConsumer(*topics, bootstrap_servers=bootstrap, group_id=group, enable_auto_commit=False,
                                       auto_offset_reset="earliest", session_timeout_ms=10000, **config)
    await source.start()
    try:
        yield source
    finally:
        await source.stop()


async def read(source, count):
    records = []
    with contextlib.suppress(asyncio.TimeoutError):
        async with asyncio.timeout(20):
            while len(records) < count:
                for batch in (await source.getmany(timeout_ms=200, max_records=count - len(records))).values():
                    records.extend(batch)
    equal(len(records), count, "records read")
    return records


async def at_rest(source):
    equal(await source.getmany(timeout_ms=300, max_records=1), {}, "records after the last")


async def eventually(what, condition):
    for _ in range(200):
        if await condition():
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"not within 10 s: {what}")


def triple(record):
    return record.key, record.value, list(record.headers)


async def main():
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()

    async def topic_exists():
        return topic in await admin.list_topics()

    async def topic_gone():
        return not await topic_exists()

    with checks.check("create-topic"):
        created = await admin.create_topics([NewTopic(topic, PARTITIONS, 1)])
        equal([error[1] for error in created.topic_errors], [0], "error codes")
        await eventually("topic is visible", topic_exists)

    codecs = [None, "gzip", "snappy", "lz4", "zstd"]
    for index, codec in enumerate(codecs):
        with checks.check(f"produce-{codec or 'none'}"):
            first = index * len(RECORDS)
            equal(await produce(codec, 0, RECORDS), list(range(first, first + len(RECORDS))), "offsets")
            async with consumer() as reader:
                reader.assign(part[:1])
                reader.seek(part[0], first)
                equal([triple(r) for r in await read(reader, len(RECORDS))], RECORDS, "records")

    with checks.check("produce-idempotent"):
        await produce("lz4", 1, RECORDS * 3, enable_idempotence=True, max_batch_size=2048)

    total = (len(codecs) + 3) * len(RECORDS)

    with checks.check("group-consume-commit"):
        async with consumer(topic) as reader:
            await read(reader, total)
            await at_rest(reader)
            await reader.commit({p: OffsetAndMetadata(await reader.position(p), "") for p in reader.assignment()})

    with checks.check("group-rejoin-from-commit"):
        await produce("snappy", 2, RECORDS)
        async with consumer(topic) as reader:
            equal({r.partition for r in await read(reader, len(RECORDS))}, {2}, "partitions with new records")
            await at_rest(reader)
            equal(await reader.committed(part[0]), len(codecs) * len(RECORDS), "committed")

    with checks.check("seek-offset"):
        async with consumer() as reader:
            reader.assign(part[:1])
            reader.seek(part[0], 7)
            equal([r.offset for r in await read(reader, 2)], [7, 8], "offsets after seek")
            equal((await reader.beginning_offsets(part[:1]))[part[0]], 0, "beginning")
            equal((await reader.end_offsets(part[:1]))[part[0]], len(codecs) * len(RECORDS), "end")

    with checks.check("seek-time"):
        async with consumer() as reader:
            reader.assign(part[:1])
            reader.seek(part[0], 0)
            stamps = [r.timestamp for r in await read(reader, len(codecs) * len(RECORDS))]
            wanted = stamps[2 * len(RECORDS)]
            found = (await reader.offsets_for_times({part[0]: wanted}))[part[0]]
            equal(found.offset, next(n for n, stamp in enumerate(stamps) if stamp >= wanted), "offset for time")
            late = await reader.offsets_for_times({part[0]: max(stamps) + 1000})
            equal(late[part[0]], None, "offset for a time after the last record")

    with checks.check("list-describe-topic"):
        described = await admin.describe_topics([topic])
        equal(len(described[0]["partitions"]), PARTITIONS, "partitions")
        answers = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
        configs = {entry[0]: entry[1] for entry in answers[0].resources[0][4]}
        equal(configs["cleanup.policy"], "delete", "cleanup.policy")

    with checks.check("list-describe-group"):
        equal(group in {g[0] for g in await admin.list_consumer_groups()}, True, "group is listed")
        described = await admin.describe_consumer_groups([group])
        equal(described[0].groups[0][2], "Empty", "state")
        offsets = await admin.list_consumer_group_offsets(group)
        equal(offsets[part[0]].offset, len(codecs) * len(RECORDS), "committed offset")

    with checks.check("delete-records"):
        equal(await admin.delete_records({part[0]: RecordsToDelete(5)}), {part[0]: 5}, "low watermark")

    with checks.check("delete-topic"):
        await admin.delete_topics([topic])
        await eventually("topic is gone", topic_gone)

    await admin.close()


asyncio.run(main())
checks.finish()
