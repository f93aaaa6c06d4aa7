"""The history of a run: what clients asked for and what they were told, in the words the checker judges by.

A *key* is one topic-partition, written `topic/partition`. A *place* is a key and an offset. Every value sent in a run is unique.
An operation ends in one of three ways: OK (it happened), FAIL (it certainly did not), INFO (nobody knows: time-outs, crashes).
Times are seconds of one monotonic clock; an operation took effect somewhere between `start` and `end`.
"""

import dataclasses
import json
import threading

OK, FAIL, INFO = "ok", "fail", "info"


@dataclasses.dataclass
class Send:
    """One record sent by `producer` (a new name per client instance); `txn` is the id of its transaction, if any."""

    producer: str
    key: str
    value: str
    status: str = INFO
    offset: int | None = None
    txn: str | None = None
    idempotent: bool = True


@dataclasses.dataclass
class Read:
    """One record as a consumer saw it; `crc` covers key, value, headers and time stamp."""

    key: str
    offset: int
    value: str
    crc: int = 0
    epoch: int | None = None


@dataclasses.dataclass
class Poll:
    """What one poll returned. `assignment` names the client and the life of its positions: it changes with every assign, seek or rebalance.
    `final` are the keys that it read whole, from the start to the end, after the run."""

    consumer: str
    assignment: str
    reads: list
    committed: bool = True
    txn: str | None = None
    final: list = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Txn:
    """The end of a transaction. FAIL is an abort that was answered. `inputs` are the places it consumed, `outputs` the values it sent for each."""

    id: str
    status: str
    copies: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Mark:
    """An offset the broker told: `what` is `earliest`, `latest`, or `committed GROUP`. Truncating `latest` or raising `earliest` is never a regression."""

    what: str
    key: str
    offset: int
    start: float
    end: float


@dataclasses.dataclass
class Progress:
    """Operations that `client` completed within the limit after a fault was healed."""

    client: str
    completed: int
    expected: int


class History:
    """Events in the order of their completion; safe to use from many threads."""

    def __init__(self, events=()):
        self.events = list(events)
        self._lock = threading.Lock()

    def add(self, event):
        with self._lock:
            self.events.append(event)
        return event

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]

    def save(self, path):
        """One JSON object per line, for a person to search after a failed run."""
        with open(path, "w") as file:
            for event in self.events:
                file.write(json.dumps({"event": type(event).__name__, **dataclasses.asdict(event)}) + "\n")
