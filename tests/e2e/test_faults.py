"""Damage, a bucket that misbehaves, and changes in the midst of work. F and I numbers are the project's faults and invariants."""

import itertools
import re
import shutil
import signal
import subprocess
import threading

import pytest
from broker import BINARY, Broker, wait_until
from clients import create_topic, produce, read_all
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from faulty_store import FaultyStore
from test_s3 import KEYS, Store

OFTEN = {"log.retention.check.interval.ms": 200}


def values(name, count, size=300):
    return [b"%s-%06d" % (name.encode(), number) + b"." * size for number in range(count)]


def fsck(broker, admin_port=None):
    """`bucket fsck --deep`: its exit code, and what it printed."""
    command = [BINARY, "bucket", "fsck", "--deep", "--object-store", broker.object_store, "--metadata", f"http://127.0.0.1:{admin_port or broker.admin_port}"]
    options = broker.options if "--s3-endpoint" in broker.options else []
    done = subprocess.run(command + options, env=broker.env, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


class Sending(threading.Thread):
    """Sends numbered records to partition 0 of a topic until told to stop; `acknowledged` is {offset: value}."""

    def __init__(self, broker, topic):
        super().__init__(daemon=True)
        self.topic, self.acknowledged, self.ended = topic, {}, threading.Event()
        self.producer = Producer({"bootstrap.servers": broker.address, "enable.idempotence": True, "linger.ms": 2, "batch.size": 8192,
                                  "message.timeout.ms": 60000, "reconnect.backoff.max.ms": 200, "log_level": 0})
        self.start()

    def run(self):
        for number in itertools.count():
            if self.ended.is_set():
                break
            self.producer.produce(self.topic, b"%08d" % number + b"." * 300, partition=0, on_delivery=self.delivered)
            wait_until(lambda: self.producer.poll(0.002) is not None and len(self.producer) < 1000, "the broker takes records", 90)
        self.producer.flush(60)

    def delivered(self, error, message):
        if not error:
            self.acknowledged[message.offset()] = message.value()

    def goes_on(self, count=100):
        before = len(self.acknowledged)
        wait_until(lambda: len(self.acknowledged) >= before + count, f"{count} more records are acknowledged", 60)

    def stop(self):
        self.ended.set()
        self.join(90)
        assert not self.is_alive()
        return {(0, offset): value for offset, value in self.acknowledged.items()}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A broker with records in both tiers, stopped cleanly; and the records of its topics."""
    broker = Broker(tmp_path_factory.mktemp("sound"), settings=OFTEN)
    with broker:
        create_topic(broker, "tiered", segment_bytes=32768, local_retention_ms=1)
        create_topic(broker, "local", segment_bytes=32768, remote_storage_enable="false")
        records = {topic: produce(broker, topic, values(topic, 500)) for topic in ("tiered", "local")}
        wait_until(lambda: broker.metric("local_dropped_bytes") > 100_000 and broker.metric("upload_lag_bytes") == 0, "the bucket has most of it")
        assert broker.stop() == 0
    return broker.root, records


@pytest.fixture
def flipped(stopped, tmp_path):
    """Flips a bit in the middle of a file of a copy of that data directory, or where `pattern` is found; the broker over it, not started."""
    brokers = []

    def flip(glob, pattern=None):
        root = tmp_path / "copy"
        brokers.append(Broker(root, settings=OFTEN))
        shutil.copytree(stopped[0], root)
        (root / "broker.log").unlink()
        file = sorted(path for path in root.glob(glob) if path.is_file() and path.stat().st_size)[0]
        content = bytearray(file.read_bytes())
        content[content.index(pattern) if pattern else len(content.rstrip(b"\0")) // 2] ^= 1
        file.write_bytes(content)
        return brokers[0]

    yield flip
    brokers[0].__exit__()


@pytest.mark.parametrize("glob", ["data/broker/manifest", "data/broker/**/*.index", "data/broker/**/*.snapshot", "data/broker/wal/*"])
def test_a_flipped_bit_beside_the_records_harms_nothing(flipped, stopped, glob):
    """F27, I17, I31: what is derived is made anew, and what only the bucket has stays in sight."""
    with flipped(glob) as broker:
        for topic, records in stopped[1].items():
            assert read_all(broker, topic) == records


@pytest.mark.parametrize("glob, pattern", [("data/metadata/metadata.redb", b"tiered"), ("data/broker/meta.properties", b"cluster.id")])
def test_a_flipped_bit_in_what_all_hangs_on_is_refused_by_name(flipped, glob, pattern):
    """F27, I46: no topic vanishes without a word."""
    with pytest.raises(RuntimeError, match=re.escape(glob.rsplit("/", 1)[1])):
        flipped(glob, pattern).start()


def test_a_flipped_bit_in_the_bucket_is_an_alarm_and_holds_up_nobody_else(flipped, stopped):
    """F27, I36: the segment is not served, all others are."""
    with flipped("bucket/**/*-*") as broker:
        assert read_all(broker, "local") == stopped[1]["local"]
        code, found = fsck(broker)
        assert code == 1 and "damaged_object" in found
        bad = int(re.search(r"/0/(\d+)-", found)[1])
        with pytest.raises(AssertionError, match="no progress"):
            read_all(broker, "tiered", start=bad, limit_s=2)
        assert "a remote segment is damaged and is not served" in broker.log()


def test_a_store_that_misbehaves_in_every_way_costs_time_only(tmp_path):
    """F31 to F35, F37: uploads and reads through refusals, lost replies, resets, cut and flipped bodies."""
    store = Store(tmp_path / "s3")
    store.start()
    proxy = FaultyStore(store.port, seed=7)
    broker = Broker(tmp_path / "broker", object_store="s3://bucket/cluster", options=["--s3-endpoint", f"http://127.0.0.1:{proxy.port}"], env=KEYS,
                    settings=OFTEN)
    broker.root.mkdir()
    try:
        with broker:
            create_topic(broker, "rough", segment_bytes=65536, local_retention_ms=1, local_retention_bytes=1)
            # A refusal is not tried again at once: rarer, so that the test is short.
            proxy.rates = {"denied": 0.02, **{fault: 0.1 for fault in ("reset", "error", "lost_reply", "corrupt", "truncated")}}
            acknowledged = {}

            def more():
                batch = produce(broker, "rough", values(f"rough {len(acknowledged)}", 500))
                assert len(batch) == 500
                acknowledged.update(batch)
                return len(acknowledged) >= 1500 and {"reset", "error", "lost_reply"} <= set(proxy.counts)

            wait_until(more, "uploads to meet every fault", 60)
            wait_until(lambda: broker.metric("remote_segments") > 3 and broker.metric("local_dropped_bytes") > 0, "segments get through", 60)
            assert read_all(broker, "rough") == acknowledged
            proxy.rates = {}
            wait_until(lambda: broker.metric("upload_lag_bytes") == 0, "uploads are made up for", 60)
            assert fsck(broker)[0] == 0
    finally:
        store.stop()


def test_a_topic_made_anew_under_its_old_producers_takes_up_nothing_of_the_old_one(make_broker):
    """F40: deleted and recreated again and again, with uploads under way, while an idempotent producer goes on."""
    with make_broker(settings={**OFTEN, "auto.create.topics.enable": "false"}) as broker:
        admin = AdminClient({"bootstrap.servers": broker.address})
        create_topic(broker, "other", segment_bytes=32768, local_retention_ms=1)
        other = Sending(broker, "other")
        create_topic(broker, "anew", segment_bytes=32768, local_retention_ms=1)
        for round_number in range(3):
            sending = Sending(broker, "anew")
            sending.goes_on(300)
            admin.delete_topics(["anew"])["anew"].result(timeout=30)
            if round_number == 1:
                broker.kill()
                broker.start()
            create_topic(broker, "anew", segment_bytes=32768, local_retention_ms=1)
            sending.producer.purge()
            sending.stop()
        last = Sending(broker, "anew")
        last.goes_on(300)
        sent = last.stop()
        read = read_all(broker, "anew")
        assert sent.items() <= read.items() and len(set(read.values())) == len(read)
        assert other.stop() == read_all(broker, "other")
        wait_until(lambda: broker.metric("upload_lag_bytes") == 0, "uploads are done")
        assert fsck(broker)[0] == 0


def test_metadata_that_dies_or_stands_still_delays_only(make_broker):
    """F6, F7, F5: under load, for longer than the session; and the broker stands still until it is fenced."""
    metadata = make_broker("metadata", options=["--role", "metadata"], settings={"broker.session.timeout.ms": 1000})
    with metadata:
        url = f"http://127.0.0.1:{metadata.admin_port}"
        broker = make_broker("broker", options=["--role", "broker", "--metadata", url], settings={**OFTEN, "broker.heartbeat.interval.ms": 200})
        with broker:
            create_topic(broker, "apart", segment_bytes=32768, local_retention_ms=1)
            sending = Sending(broker, "apart")
            sending.goes_on()
            for victim in (metadata, broker):
                victim.process.send_signal(signal.SIGSTOP)
                threading.Event().wait(2.5)
                victim.process.send_signal(signal.SIGCONT)
                sending.goes_on()
            for victim in (metadata, broker, metadata):
                victim.kill()
                victim.start()
                sending.goes_on()
            sent = sending.stop()
            wait_until(lambda: broker.metric("upload_lag_bytes") == 0 and broker.metric("local_dropped_bytes") > 0, "uploads are made up for")
            assert read_all(broker, "apart") == sent
            assert fsck(broker, metadata.admin_port)[0] == 0
