"""Starting and stopping as an init system or Kubernetes does it."""

import signal
import socket
import subprocess
import time

from broker import wait_until
from clients import create_topic, produce

KEYS = {"AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none", "AWS_REGION": "us-east-1"}


def test_sigterm_during_the_start_is_heeded_at_once(make_broker):
    """The bucket takes connections and never answers, so the start waits for it."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        broker = make_broker(object_store="s3://bucket/prefix", options=["--s3-endpoint", endpoint], env=KEYS)
        with open(broker.log_file, "ab") as log:
            broker.process = subprocess.Popen(broker.command(), stdout=subprocess.PIPE, stderr=log, env=broker.env)
        wait_until(lambda: "logs recovered" in broker.log(), "the start is under way")
        before = time.monotonic()
        broker.process.send_signal(signal.SIGTERM)
        assert broker.process.wait(timeout=30) == 0
        assert time.monotonic() - before < 3, "it did not wait for the bucket"
        assert "stopping before the start was done" in broker.log()


def test_a_stop_ends_while_the_bucket_hangs(make_broker):
    """Uploads under way are dropped, the logs are flushed, and the next start finds a clean stop."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        broker = make_broker(object_store="s3://bucket/prefix", options=["--s3-endpoint", endpoint], env=KEYS)
        broker.start()
        create_topic(broker, "waiting", segment_bytes=65536)
        assert len(produce(broker, "waiting", [b"x" * 200] * 2000)) == 2000
        wait_until(lambda: broker.metric("upload_lag_bytes") > 0, "segments wait for the bucket")
        before = time.monotonic()
        assert broker.stop() == 0
        assert time.monotonic() - before < 10, "nobody waits for the bucket"
        assert "did not end in time" not in broker.log()
        broker.start()
        assert "clean=true" in broker.log().replace("\x1b[3m", "").replace("\x1b[0m", "").replace("\x1b[2m", "")
