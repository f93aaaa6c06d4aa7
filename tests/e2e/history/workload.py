"""A mixed workload whose every answer goes into a history: senders, transactions, a copier, readers, an auditor, and a nemesis.

Clients use safe settings: acks=all, idempotence, read_committed, auto-commit off. A client "crashes" when it is dropped without a flush
and made anew. What timed out or was cut off is INFO, never FAIL: filing an unknown as a failure is the classic mistake of such a harness.
"""

import random
import signal
import sys
import threading
import time
import traceback
import zlib

from broker import wait_until
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from events import FAIL, INFO, OK, History, Mark, Poll, Progress, Read, Send, Txn

CERTAIN_FAILURES = {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_RECORD, KafkaError.TOPIC_AUTHORIZATION_FAILED,
                    KafkaError._PURGE_QUEUE, KafkaError._QUEUE_FULL}
PADDING = bytes(range(200))


def checksum(message):
    """Over all a client can see of a record."""
    parts = [message.key() or b"", message.value() or b"", str(message.timestamp()).encode(), repr(message.headers()).encode()]
    return zlib.crc32(b"\0".join(parts))


def as_read(message):
    return Read(f"{message.topic()}/{message.partition()}", message.offset(), message.value().decode(), checksum(message), message.leader_epoch())


class Client(threading.Thread):
    """One client's life: `step` until told to stop; every step may fail, and what it knows by then is in the history."""

    crash_factor = 1
    may_hang = False

    def __init__(self, run, name):
        super().__init__(name=name, daemon=True)
        self.run_of, self.history, self.completed, self.lives = run, run.history, 0, 0
        self.random = random.Random(f"{run.seed} {name}")
        self.crash_probability = run.crash_probability * self.crash_factor
        self.failures = []

    def run(self):
        while not self.run_of.stopping.is_set():
            try:
                self.open()
                while not self.run_of.stopping.is_set() and self.random.random() > self.crash_probability:
                    self.step()
            except KafkaException as failure:
                self.failures.append(str(failure))
            finally:
                self.close()

    def where(self):
        """What the client is doing, for a message about one that hangs."""
        frame = sys._current_frames().get(self.ident)
        return "".join(traceback.format_stack(frame)) if frame else "ended"

    def open(self):
        self.lives += 1
        self.id = f"{self.name}.{self.lives}"

    def config(self, **more):
        return {"bootstrap.servers": self.run_of.broker.address, "reconnect.backoff.max.ms": 500, "socket.timeout.ms": 10000, "log_level": 0,
                **{name.replace("_", "."): value for name, value in more.items()}}

    def close(self):
        """A crash: nothing is flushed or left in good order."""

    def key(self):
        return self.random.choice(self.run_of.keys)


class Sender(Client):
    """Idempotent sends, several in flight."""

    def open(self):
        super().open()
        self.count = 0
        self.producer = Producer(self.config(enable_idempotence=True, linger_ms=2, message_timeout_ms=60000, batch_num_messages=20))

    def step(self):
        self.send(self.key())
        self.producer.poll(0.002)

    def send(self, key, txn=None, value=None):
        self.count += 1
        sent = self.history.add(Send(self.id, key, value or f"{self.id}-{self.count}", txn=txn))
        topic, partition = key.rsplit("/", 1)

        def delivered(error, message):
            if error is None:
                sent.status, sent.offset = OK, message.offset()
                self.completed += 1
            elif error.code() in CERTAIN_FAILURES and txn is None and error.code() != KafkaError._PURGE_QUEUE:
                sent.status = FAIL

        try:
            self.producer.produce(topic, value=sent.value.encode(), key=self.id.encode(), partition=int(partition), headers=[("pad", PADDING), ("pad", b"")],
                                  on_delivery=delivered)
        except BufferError:
            sent.status = FAIL
            self.producer.poll(0.1)
        return sent

    def close(self):
        self.producer.purge(in_flight=False)
        if self.run_of.stopping.is_set():
            self.producer.flush(30)


class Transactor(Sender):
    """Transactions of one to four sends; one in five is aborted. Each life takes over the transactional id, and so fences the one before.

    A fatal INVALID_TXN_STATE is librdkafka's own, on Apache Kafka too: if the coordinator dies before it sees AddPartitionsToTxn, the client counts
    that request as sent, and its abort then ends a transaction of which the coordinator knows nothing. A new life follows.
    """

    crash_factor = 10
    zombies = []

    def open(self):
        Client.open(self)
        self.count = 0
        self.producer = Producer(self.config(transactional_id=self.name, linger_ms=0, transaction_timeout_ms=30000))
        self.producer.init_transactions(60)

    def step(self):
        self.count += 1
        txn = f"{self.id}.txn{self.count}"
        end = self.history.add(Txn(txn, INFO))
        try:
            self.producer.begin_transaction()
            self.fill(txn, end)
            if self.random.random() < self.crash_probability:
                raise KafkaException(KafkaError(KafkaError._FAIL, "crash with an open transaction", True))
            if self.random.random() < 0.2:
                self.finish(end, self.producer.abort_transaction, FAIL)
            else:
                self.finish(end, self.producer.commit_transaction, OK)
        except KafkaException as failure:
            error = failure.args[0]
            if not error.txn_requires_abort() or error.fatal():
                raise
            self.finish(end, self.producer.abort_transaction, FAIL)
            self.aborted()

    def fill(self, txn, end):
        for _ in range(self.random.randint(1, 4)):
            self.send(self.key(), txn)

    def aborted(self):
        """The broker asked for an abort."""

    def finish(self, end, how, status):
        """Retries what may be retried: the answer counts, not the first attempt."""
        while True:
            try:
                how(10)
                end.status = status
                self.completed += 1
                return
            except KafkaException as failure:
                if not failure.args[0].retriable() or self.run_of.stopping.is_set():
                    raise

    def close(self):
        """Left behind as a zombie with its transaction open, until the next life fences it. (librdkafka 2.16 may abort the process if it is destroyed.)"""
        self.zombies.append(self.producer)


class Copier(Transactor):
    """Consume, transform, produce: every record of the inputs becomes one record of `out`, exactly once.

    librdkafka 2.16 may sit in send_offsets_to_transaction for ever, on Apache Kafka too, with no request out and whatever its time-out: then this
    client is as good as crashed, so nobody waits for it.
    """

    may_hang = True

    def open(self):
        super().open()
        self.consumer = Consumer(self.config(group_id="copiers", isolation_level="read_committed", auto_offset_reset="earliest", enable_auto_commit=False,
                                             session_timeout_ms=6000))
        self.consumer.subscribe(["in"])
        self.batch = []

    def step(self):
        self.batch = [message for message in self.consumer.consume(20, 0.2) if not message.error()]
        if self.batch:
            super().step()

    def fill(self, txn, end):
        positions = {}
        for message in self.batch:
            place = f"{message.topic()}/{message.partition()}@{message.offset()}"
            end.copies[place] = self.send("out/0", txn, f"{txn}<{place}").value
            positions[message.partition()] = message.offset() + 1
        self.producer.send_offsets_to_transaction([TopicPartition("in", partition, offset) for partition, offset in positions.items()],
                                                  self.consumer.consumer_group_metadata(), 10)

    def finish(self, end, how, status):
        super().finish(end, how, status)
        if status == FAIL:
            # What was aborted is to be read again: a new life starts from the committed offsets.
            raise KafkaException(KafkaError(KafkaError._FAIL, "aborted"))

    def close(self):
        super().close()
        if hasattr(self, "consumer"):
            self.consumer.close()


class Reader(Client):
    """Reads by `assign`, from the start again at times; or by `subscribe`, committing what it read."""

    def __init__(self, run, name, group=None, committed=True):
        super().__init__(run, name)
        self.group, self.committed = group, committed

    def open(self):
        super().open()
        self.life = 0
        self.consumer = Consumer(self.config(group_id=self.group or self.name, enable_auto_commit=False, auto_offset_reset="earliest", session_timeout_ms=6000,
                                             isolation_level="read_committed" if self.committed else "read_uncommitted"))
        if self.group:
            self.consumer.subscribe(sorted({key.rsplit("/", 1)[0] for key in self.run_of.keys}), on_assign=self.moved, on_revoke=self.moved)
        else:
            self.consumer.assign([TopicPartition(*_split(key), 0) for key in self.run_of.all_keys])

    def moved(self, consumer, partitions):
        self.life += 1

    def step(self):
        assignment = f"{self.id}/{self.life}"
        messages = [message for message in self.consumer.consume(200, 0.2) if not message.error()]
        if messages:
            # A rebalance inside `consume` may lie before or after the records: such a batch belongs to no assignment's order.
            if assignment != f"{self.id}/{self.life}":
                assignment = f"{self.id}/{self.life} turned at {len(self.history.events)}"
            self.history.add(Poll(self.id, assignment, [as_read(message) for message in messages], committed=self.committed))
            self.completed += len(messages)
            if self.group:
                try:
                    self.consumer.commit(asynchronous=False)
                except KafkaException as failure:
                    self.failures.append(str(failure))

    def close(self):
        self.consumer.close()


class Auditor(Client):
    """Asks for offsets that must not fall."""

    def open(self):
        super().open()
        self.consumer = Consumer(self.config(group_id=self.run_of.group))

    def step(self):
        key = self.key()
        partition = TopicPartition(*_split(key))
        start = time.monotonic()
        earliest, latest = self.consumer.get_watermark_offsets(partition, timeout=10)
        end = time.monotonic()
        self.history.add(Mark("earliest", key, earliest, start, end))
        self.history.add(Mark("latest", key, latest, start, end))
        start = time.monotonic()
        committed = self.consumer.committed([partition], timeout=10)[0].offset
        if committed >= 0:
            self.history.add(Mark(f"committed {self.run_of.group}", key, committed, start, time.monotonic()))
        self.completed += 1
        self.run_of.stopping.wait(0.05)

    def close(self):
        self.consumer.close()


class Run:
    """One run of the workload against one broker."""

    group = "readers"

    def __init__(self, broker, *, seed=1, partitions=3, crash_probability=0.002):
        self.broker, self.seed, self.crash_probability, self.random = broker, seed, crash_probability, random.Random(seed)
        self.history = History()
        self.keys = [f"in/{partition}" for partition in range(partitions)]
        self.all_keys = [*self.keys, "out/0"]
        self.stopping = threading.Event()
        self.clients = [Sender(self, "s1"), Sender(self, "s2"), Transactor(self, "t1"), Transactor(self, "t2"), Copier(self, "c1"),
                        Reader(self, "assigned"), Reader(self, "uncommitted", committed=False), Reader(self, "g1", self.group), Reader(self, "g2", self.group),
                        Auditor(self, "auditor")]

    def start(self):
        for client in self.clients:
            client.start()

    def waited_for(self):
        return [client for client in self.clients if not client.may_hang]

    def crash(self):
        """F1: kill -9, and up again."""
        self.broker.kill()
        self.broker.start()

    def pause(self, seconds):
        """F5: the process stands still for a while."""
        self.broker.process.send_signal(signal.SIGSTOP)
        self.stopping.wait(seconds)
        self.broker.process.send_signal(signal.SIGCONT)

    def healed(self, operations=100, limit_s=60):
        """C15: every client gets on within the limit."""
        before = {client: client.completed for client in self.clients}
        try:
            wait_until(lambda: all(client.completed >= before[client] + operations for client in self.waited_for()), "every client gets on", limit_s)
        except TimeoutError:
            pass
        for client in self.waited_for():
            self.history.add(Progress(client.name, client.completed - before[client], operations))

    def stop(self):
        """Stops the clients and ends the transactions they left open."""
        self.stopping.set()
        for client in self.waited_for():
            client.join(60)
            assert not client.is_alive(), f"{client.name} does not stop: {client.where()}"
        for client in self.clients:
            if isinstance(client, Transactor):
                producer = Producer(client.config(transactional_id=client.name))
                producer.init_transactions(60)

    def final_poll(self, name, isolation="read_committed"):
        """Everything from the start of every key to its last stable offset, or to its end."""
        consumer = Consumer({"bootstrap.servers": self.broker.address, "group.id": name, "isolation.level": isolation, "enable.auto.commit": False,
                             "enable.partition.eof": True, "check.crcs": True})
        consumer.assign([TopicPartition(*_split(key), 0) for key in self.all_keys])
        reads, at_end = [], set()
        while len(at_end) < len(self.all_keys):
            message = consumer.poll(30)
            assert message is not None, f"{name} made no progress after {len(reads)} records"
            if not message.error():
                reads.append(as_read(message))
            elif message.error().code() == KafkaError._PARTITION_EOF:
                at_end.add(f"{message.topic()}/{message.partition()}")
        consumer.close()
        self.history.add(Poll(name, name, reads, committed=isolation == "read_committed", final=self.all_keys))
        return reads


def _split(key):
    topic, partition = key.rsplit("/", 1)
    return topic, int(partition)
