"""Starts, kills and inspects a Siltstone broker, for tests and for the demo."""

import os
import pathlib
import re
import signal
import subprocess
import threading
import time
import urllib.request

BINARY = os.environ.get("SILTSTONE_BIN") or str(pathlib.Path(__file__).parents[2] / "target/release/siltstone")


def wait_until(condition, what, limit_s=30.0):
    """Waits for a condition, and says what it waited for if it does not come."""
    deadline = time.monotonic() + limit_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {limit_s} s: {what}")
        time.sleep(0.02)


class Broker:
    """One broker process over a directory of its own; may be killed and started again over the same data."""

    def __init__(self, root, *, settings=None, options=(), object_store=None, env=None):
        self.root = pathlib.Path(root)
        self.data = self.root / "data"
        self.bucket = self.root / "bucket"
        self.log_file = self.root / "broker.log"
        self.object_store = object_store or f"file://{self.bucket}"
        self.settings = dict(settings or {})
        self.options = list(options)
        self.env = {**os.environ, **(env or {})}
        self.process = None
        self.port = 0
        self.admin_port = 0

    def command(self):
        command = [BINARY, "serve", "--listen", f"127.0.0.1:{self.port}", "--admin", f"127.0.0.1:{self.admin_port}"]
        command += ["--data-dir", str(self.data), "--object-store", self.object_store, *self.options]
        for name, value in self.settings.items():
            command += ["--set", f"{name}={value}"]
        return command

    def start(self, limit_s=30.0):
        """Starts the process and waits for its line `listening on HOST:PORT`."""
        log = open(self.log_file, "ab")
        self.process = subprocess.Popen(self.command(), stdout=subprocess.PIPE, stderr=log, env=self.env)
        line = _first_line(self.process, limit_s)
        match = re.fullmatch(r"listening on (\S+):(\d+)\n", line)
        if not match:
            self.process.kill()
            self.process.wait()
            raise RuntimeError(f"the broker did not start: {line!r}\n{self.log()[-2000:]}")
        self.port = int(match[2])
        self.admin_port = int(re.findall(r"admin=\S*?:(\d+)", _plain(self.log()))[-1])
        return self

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def log(self):
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def kill(self):
        """kill -9, as a crash does."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self, limit_s=30.0):
        """A clean stop; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=limit_s)

    def http(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}{path}", timeout=10) as response:
            return response.read().decode()

    def metric(self, name):
        """The value of a metric without labels."""
        found = re.search(rf"^siltstone_{name}(?:_total)? (\S+)$", self.http("/metrics"), re.M)
        if not found:
            raise KeyError(name)
        return float(found[1])

    def bucket_objects(self):
        """Segment objects in a bucket that is a directory."""
        return [path for path in self.bucket.rglob("*") if path.is_file() and "-" in path.name] if self.bucket.exists() else []

    def local_segments(self):
        """Sealed and active segment files on the local disk."""
        return sorted((self.data / "broker").rglob("*.log"))

    def __enter__(self):
        return self.start()

    def __exit__(self, *exc):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def _first_line(process, limit_s):
    line = []
    reader = threading.Thread(target=lambda: line.append(process.stdout.readline().decode()), daemon=True)
    reader.start()
    reader.join(limit_s)
    return line[0] if line else ""


def _plain(text):
    return re.sub(r"\x1b\[[0-9;]*m", "", text)
