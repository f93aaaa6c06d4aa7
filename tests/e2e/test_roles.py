"""Metadata service and broker as two processes, and what curl shows of them."""

import json
import socket
import threading

from broker import Broker, wait_until
from clients import create_topic, kcat, produce


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


class Link:
    """A way to a port of this machine that can be cut: what is under way then hangs, as with a cable."""

    def __init__(self, port):
        self.target = port
        self.whole = threading.Event()
        self.whole.set()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            client, _ = self.listener.accept()
            server = socket.create_connection(("127.0.0.1", self.target))
            for ends in ((client, server), (server, client)):
                threading.Thread(target=self.carry, args=ends, daemon=True).start()

    def carry(self, source, sink):
        try:
            while data := source.recv(65536):
                self.whole.wait()
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            source.close()


def test_a_broker_that_is_cut_off_and_replaced_acknowledges_nothing(make_broker):
    """Its image can't tell that another process has its place (F11): two would acknowledge what one log can't hold (I9)."""
    metadata = make_broker("metadata", options=["--role", "metadata"], settings={"broker.session.timeout.ms": 2000})
    with metadata:
        link = Link(metadata.admin_port)
        cut_off = make_broker("cut-off", options=["--role", "broker", "--metadata", f"http://127.0.0.1:{link.port}"],
                              settings={"broker.heartbeat.interval.ms": 300})
        successor = make_broker("successor", options=["--role", "broker", "--metadata", f"http://127.0.0.1:{metadata.admin_port}"],
                                object_store=cut_off.object_store)
        with cut_off:
            create_topic(cut_off, "t")
            assert produce(cut_off, "t", [b"before"]) == {(0, 0): b"before"}
            link.whole.clear()
            with successor:
                for acks in ("all", "1"):
                    late = produce(cut_off, "t", [b"late"], **{"enable.idempotence": False, "acks": acks, "message.timeout.ms": 1500})
                    assert late == {}, "nobody will ever read it"
                assert kcat(cut_off, "-C", "-t", "t", "-e", "-q") == b"before\n", "what it has is read all the same"
                assert produce(successor, "t", [b"after"]) != {}
                link.whole.set()
                wait_until(lambda: cut_off.process.poll() is not None, "the broker that was replaced to stop")
                assert "another process has registered as this broker" in cut_off.log()


def test_a_broker_goes_on_when_its_metadata_service_is_back(make_broker):
    metadata = make_broker("metadata", options=["--role", "metadata"], settings={"broker.session.timeout.ms": 1000})
    with metadata:
        broker = make_broker("broker", options=["--role", "broker", "--metadata", f"http://127.0.0.1:{metadata.admin_port}"],
                             settings={"broker.heartbeat.interval.ms": 300})
        with broker:
            create_topic(broker, "t")
            metadata.kill()
            refused = lambda: produce(broker, "t", [b"refused"], **{"message.timeout.ms": 500}) == {}  # noqa: E731
            wait_until(refused, "the session to end")
            metadata.start()
            assert len(produce(broker, "t", [b"again"])) == 1


def test_health_and_readiness(broker: Broker):
    assert broker.http("/healthz") == "ok\n"
    assert broker.http("/readyz") == "ready\n"
    assert broker.metric("partitions") == 0
    assert json.loads(broker.http("/v1/image"))
