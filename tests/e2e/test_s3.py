"""The same story on a real S3 endpoint."""

import os
import pathlib
import socket
import subprocess

import pytest
from broker import Broker, wait_until
from clients import create_topic, produce, read_all

HERE = pathlib.Path(__file__).parent
KEYS = {"AWS_ACCESS_KEY_ID": "siltstone", "AWS_SECRET_ACCESS_KEY": "siltstone-secret", "AWS_REGION": "us-east-1"}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def is_open(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Store:
    """A versitygw process over a directory; may be stopped and started again."""

    def __init__(self, directory):
        self.directory, self.port, self.process = directory, free_port(), None
        (directory / "bucket").mkdir(parents=True)

    def start(self):
        subprocess.run([HERE / "store.sh", "build", "versitygw"], check=True)
        command = [HERE / "store.sh", "start", "versitygw", str(self.port), self.directory]
        self.process = subprocess.Popen(command, env={**os.environ, **KEYS}, stdout=subprocess.DEVNULL)
        wait_until(lambda: is_open(self.port), "the store listens")

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "s3")
    store.start()
    yield store
    store.stop()


def test_history_from_s3_and_through_an_outage(store, tmp_path):
    """F30: the store goes away for a while; uploads are made up for, nothing is lost."""
    broker = Broker(tmp_path / "broker", object_store="s3://bucket/cluster", options=["--s3-endpoint", f"http://127.0.0.1:{store.port}"], env=KEYS,
                    settings={"log.retention.check.interval.ms": 200})
    broker.root.mkdir()
    with broker:
        create_topic(broker, "history", segment_bytes=131072, local_retention_ms=1, local_retention_bytes=1)
        values = [b"%06d" % number + b"x" * 300 for number in range(4000)]
        acknowledged = produce(broker, "history", values[:2000])
        wait_until(lambda: broker.metric("remote_segments") > 2 and broker.metric("upload_lag_bytes") == 0, "segments are in the bucket")
        store.stop()
        more = produce(broker, "history", values[2000:])
        wait_until(lambda: broker.metric("upload_lag_bytes") > 0, "uploads wait")
        store.start()
        wait_until(lambda: broker.metric("upload_lag_bytes") == 0, "uploads are made up for", 90)
        assert len(acknowledged) == 2000 and len(more) == 2000
        assert read_all(broker, "history") == {**acknowledged, **more}
        assert broker.metric("fetched_remote_bytes") > 0
