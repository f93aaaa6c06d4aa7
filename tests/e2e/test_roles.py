"""Metadata service and broker as two processes, and what curl shows of them."""

import json

from broker import Broker
from clients import kcat


def test_two_processes(make_broker):
    metadata = make_broker("metadata", options=["--role", "metadata"])
    with metadata:
        broker = make_broker("broker", options=["--role", "broker", "--metadata", f"http://127.0.0.1:{metadata.admin_port}"])
        with broker:
            kcat(broker, "-P", "-t", "apart", stdin=b"hello\n")
            assert kcat(broker, "-C", "-t", "apart", "-e", "-q") == b"hello\n"
            assert "apart" in metadata.http("/v1/image")
            metadata.kill()
            kcat(broker, "-P", "-t", "apart", stdin=b"still here\n")
            metadata.start()
            kcat(broker, "-P", "-t", "later", stdin=b"new topic\n")
            assert kcat(broker, "-C", "-t", "later", "-e", "-q") == b"new topic\n"


def test_health_and_readiness(broker: Broker):
    assert broker.http("/healthz") == "ok\n"
    assert broker.http("/readyz") == "ready\n"
    assert broker.metric("partitions") == 0
    assert json.loads(broker.http("/v1/image"))
