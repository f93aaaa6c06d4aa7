"""A Kafka Connect worker in distributed mode, and its REST interface."""

import json
import urllib.error
import urllib.request

from broker import wait_until
from java import Java, free_port


class Worker:
    """One worker of the group `connect`; `more` are further worker settings."""

    def __init__(self, root, broker, **more):
        self.root, self.port = root, free_port()
        settings = {
            "bootstrap.servers": broker.address, "group.id": "connect", "listeners": f"http://127.0.0.1:{self.port}",
            "key.converter": "org.apache.kafka.connect.storage.StringConverter", "value.converter": "org.apache.kafka.connect.storage.StringConverter",
            "offset.storage.topic": "connect-offsets", "offset.storage.replication.factor": 1, "offset.storage.partitions": 5,
            "config.storage.topic": "connect-configs", "config.storage.replication.factor": 1,
            "status.storage.topic": "connect-status", "status.storage.replication.factor": 1,
            "plugin.discovery": "service_load", "offset.flush.interval.ms": 1000, "session.timeout.ms": 10000, "scheduled.rebalance.max.delay.ms": 0,
            **{name.replace("_", "."): value for name, value in more.items()},
        }
        self.properties = root / "worker.properties"
        self.properties.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.java.__exit__()

    def start(self):
        self.java = Java(self.root, "org.apache.kafka.connect.cli.ConnectDistributed", self.properties)
        wait_until(self._answers, "the worker's REST interface", 90)

    def _answers(self):
        assert self.java.process.poll() is None, self.java.log()[-3000:]
        try:
            self.call("GET", "/connectors")
            return True
        except (urllib.error.URLError, ConnectionError):
            return False

    def call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read() or b"null")

    def connect(self, name, connector, **config):
        """Creates the connector and waits until its task runs."""
        config = {name.replace("_", "."): value for name, value in config.items()}
        self.call("PUT", f"/connectors/{name}/config", {"connector.class": connector, "tasks.max": "1", **config})
        wait_until(lambda: self.running(name), f"{name} runs: {self.java.log_file}", 60)

    def running(self, name):
        try:
            status = self.call("GET", f"/connectors/{name}/status")
        except urllib.error.HTTPError:
            return False
        assert "FAILED" not in json.dumps(status), status
        return [task["state"] for task in status["tasks"]] == ["RUNNING"]
