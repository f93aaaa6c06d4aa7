"""What the Python smoke scripts share: the records they send, and a tally that prints one line per check.

A script prints `CLIENT/CHECK,PASS` or `CLIENT/CHECK,FAIL` for each check and `CLIENT: N passed, N failed` at the end.
"""

import contextlib
import os
import sys
import time
import traceback
import uuid

PARTITIONS = 3

# (key, value, headers): a header name twice, an empty and a null header value, a null key, a null value, then enough to compress.
RECORDS = [
    (b"key", b"value", [("h", b"first"), ("other", b""), ("h", b"second"), ("none", None)]),
    (None, b"null key", []),
    (b"null value", None, [("h", b"only")]),
    (b"", b"", []),
] + [(b"bulk-%d" % n, b"silt and stone " * 70, [("n", b"%d" % n)]) for n in range(16)]


class Checks:
    """Runs named checks, going on after a failure so that one run shows every defect."""

    def __init__(self, client):
        self.client = client
        self.passed = 0
        self.failed = 0
        self.topic = f"smoke-{client}-{uuid.uuid4().hex[:8]}"

    @contextlib.contextmanager
    def check(self, name):
        try:
            yield
        except Exception as error:
            self.failed += 1
            line = traceback.extract_tb(error.__traceback__)[1].lineno
            print(f"{self.client}/{name}: line {line}: {type(error).__name__}: {error}", file=sys.stderr)
            print(f"{self.client}/{name},FAIL", flush=True)
        else:
            self.passed += 1
            print(f"{self.client}/{name},PASS", flush=True)

    def finish(self):
        """Print the closing line and end the process: client libraries like to hang in their destructors."""
        print(f"{self.client}: {self.passed} passed, {self.failed} failed", flush=True)
        sys.stderr.flush()
        os._exit(1 if self.failed else 0)


def equal(got, wanted, what="value"):
    if got != wanted:
        raise AssertionError(f"{what}: got {str(got)[:400]}, wanted {str(wanted)[:400]}")


def eventually(what, condition, timeout_s=10.0):
    """Wait for a condition; a Kafka cluster shows new and deleted topics a moment later."""
    deadline = time.monotonic() + timeout_s
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s} s: {what}")
        time.sleep(0.05)
