"""Judges a history by the rules C1 to C15 (after Jepsen's Kafka workload and Redpanda's verifiers).

Each rule is a function from a `Facts` to the anomalies it found; `check` runs them all. A history without anomalies proves nothing,
a history with one proves a bug (in the broker, a client, or this harness), so every rule has a negative control in test_checker.py.
"""

import bisect
import collections
import dataclasses

from events import FAIL, INFO, OK, Mark, Poll, Progress, Send, Txn


@dataclasses.dataclass(frozen=True)
class Anomaly:
    rule: str
    name: str
    detail: str


class Facts:
    """What the rules share: sends by value, reads by place, and what is known of every transaction."""

    def __init__(self, history):
        self.history = history
        self.sends = {send.value: send for send in history.of(Send)}
        self.polls = history.of(Poll)
        self.txns = {txn.id: txn for txn in history.of(Txn)}
        self.reads = [(poll, read) for poll in self.polls for read in poll.reads]
        self.seen = {read.value for poll, read in self.reads if poll.committed}
        # Something read under read_committed proves its transaction committed, whatever its end said.
        proven = {self.sends[value].txn for value in self.seen if value in self.sends and self.sends[value].txn}
        self.committed = {txn.id for txn in self.txns.values() if txn.status == OK} | {txn for txn in proven if self.status_of(txn) == INFO}
        self.places = collections.defaultdict(set)
        for poll, read in self.reads:
            self.places[read.key, read.offset].add(read.value)
        for send in self.sends.values():
            if send.offset is not None and send.status == OK:
                self.places[send.key, send.offset].add(send.value)
        self.highest = collections.defaultdict(lambda: -1)
        for poll, read in self.reads:
            self.highest[read.key] = max(self.highest[read.key], read.offset)
        # Offsets that read_committed readers can see, per key, in order.
        visible = collections.defaultdict(set)
        for (key, offset), values in self.places.items():
            if any(self.must_be_visible(value) or value in self.seen for value in values):
                visible[key].add(offset)
        self.visible = {key: sorted(offsets) for key, offsets in visible.items()}

    def status_of(self, txn):
        return self.txns[txn].status if txn in self.txns else INFO

    def must_be_visible(self, value):
        """True for a send that was acknowledged outside a transaction or inside a committed one."""
        send = self.sends.get(value)
        return send is not None and send.status == OK and (send.txn is None or send.txn in self.committed)

    def skipped(self, key, after, before):
        """Visible offsets strictly between two."""
        visible = self.visible.get(key, ())
        return visible[bisect.bisect_right(visible, after):bisect.bisect_left(visible, before)]


def aborted_read(facts):
    """C1: no value of a failed send or an aborted transaction is ever read by a read_committed consumer, nor one nobody sent."""
    for poll, read in facts.reads:
        send = facts.sends.get(read.value)
        if send is None:
            yield f"{read.key}@{read.offset} holds {read.value!r}, which nobody sent"
        elif send.status == FAIL and send.txn is None:
            yield f"{read.value!r} failed and was read at {read.key}@{read.offset}"
        elif poll.committed and send.txn is not None and facts.status_of(send.txn) == FAIL:
            yield f"{read.value!r} of the aborted {send.txn} was read at {read.key}@{read.offset} by {poll.consumer}"


def inconsistent_offsets(facts):
    """C2: a place holds one value."""
    for (key, offset), values in facts.places.items():
        if len(values) > 1:
            yield f"{key}@{offset} held {sorted(values)}"
    for _, read in facts.reads:
        send = facts.sends.get(read.value)
        if send is not None and send.key != read.key:
            yield f"{read.value!r} was sent to {send.key} and read from {read.key}"


def lost_write(facts):
    """C3: what is acknowledged, or proven by a sibling of its transaction, and lies below the highest offset read, is read; and what was read once
    is there to the end."""
    for poll in facts.polls:
        there = {read.value for read in poll.reads}
        for key in poll.final:
            for offset in facts.visible.get(key, ()):
                if not facts.places[key, offset] & there:
                    yield f"{sorted(facts.places[key, offset])} at {key}@{offset} is gone for {poll.consumer}"
    for send in facts.sends.values():
        if facts.must_be_visible(send.value) and send.value not in facts.seen:
            if send.offset is None or send.offset < facts.highest[send.key]:
                yield f"{send.value!r} at {send.key}@{send.offset} was acknowledged and never read"


def unseen(facts):
    """C4: at the end everything acknowledged has been read by someone."""
    for send in facts.sends.values():
        if facts.must_be_visible(send.value) and send.value not in facts.seen and send.offset is not None and send.offset >= facts.highest[send.key]:
            yield f"{send.value!r} at {send.key}@{send.offset} is past everything that was read"


def duplicate(facts):
    """C5: with idempotence on, a value is at one offset."""
    offsets = collections.defaultdict(set)
    for _, read in facts.reads:
        offsets[read.value].add((read.key, read.offset))
    for value, places in offsets.items():
        send = facts.sends.get(value)
        if len(places) > 1 and send is not None and send.idempotent:
            yield f"{value!r} is at {sorted(places)}"


def skip_within_poll(facts):
    """C6: within one poll the offsets of a key rise and leave out nothing visible."""
    for poll in facts.polls:
        last = {}
        for read in poll.reads:
            before = last.get(read.key)
            if before is not None and read.offset <= before:
                yield f"{poll.consumer} went from {read.key}@{before} back to {read.offset} within a poll"
            elif before is not None and facts.skipped(read.key, before, read.offset):
                yield f"{poll.consumer} skipped {read.key}@{facts.skipped(read.key, before, read.offset)[:3]} within a poll"
            last[read.key] = read.offset


def skip_between_polls(facts):
    """C7: from poll to poll of one assignment nothing is skipped or read again."""
    last = {}
    for poll in facts.polls:
        ends = {}
        for read in poll.reads:
            if read.key not in ends:
                before = last.get((poll.assignment, read.key))
                if before is not None and read.offset <= before:
                    yield f"{poll.assignment} went from {read.key}@{before} back to {read.offset}"
                elif before is not None and facts.skipped(read.key, before, read.offset):
                    yield f"{poll.assignment} skipped {read.key}@{facts.skipped(read.key, before, read.offset)[:3]}"
            ends[read.key] = read.offset
        for key, offset in ends.items():
            last[poll.assignment, key] = offset


def nonmonotonic_send(facts):
    """C8: what one producer sends to one key gets rising offsets."""
    last = {}
    for send in facts.history.of(Send):
        if send.status == OK and send.offset is not None:
            before = last.get((send.producer, send.key))
            if before is not None and send.offset <= before:
                yield f"{send.producer} got {send.key}@{send.offset} after {before}"
            last[send.producer, send.key] = send.offset


def precommitted_read(facts):
    """C9: a transaction doesn't read what it wrote itself."""
    for poll, read in facts.reads:
        send = facts.sends.get(read.value)
        if poll.committed and poll.txn is not None and send is not None and send.txn == poll.txn:
            yield f"{poll.txn} read its own {read.value!r}"


def write_read_cycle(facts):
    """C10: no cycle of "B read what A wrote" among committed transactions."""
    edges = collections.defaultdict(set)
    for poll, read in facts.reads:
        send = facts.sends.get(read.value)
        if send is not None and send.txn in facts.committed and poll.txn in facts.committed and send.txn != poll.txn:
            edges[send.txn].add(poll.txn)
    finished = set()
    for root in list(edges):
        path, stack = {}, [(root, iter(edges[root]))]
        path[root] = True
        while stack:
            node, following = stack[-1]
            target = next((one for one in following if one not in finished), None)
            if target is None:
                finished.add(node)
                path.pop(node, None)
                stack.pop()
            elif target in path:
                yield f"{list(path)[list(path).index(target):]} read from each other"
                return
            else:
                path[target] = True
                stack.append((target, iter(edges[target])))


def copied_once(facts):
    """C11: a committed consume-transform-produce gives every input one output."""
    outputs = collections.defaultdict(set)
    for txn in facts.txns.values():
        for place, value in txn.copies.items():
            if value in facts.seen:
                outputs[place].add(value)
            elif txn.id in facts.committed:
                yield f"{txn.id} committed, and its {value!r} was never read"
    for place, values in outputs.items():
        if len(values) > 1:
            yield f"{place} was copied {len(values)} times: {sorted(values)}"


def epoch_regression(facts):
    """C12: leader epochs don't fall as offsets rise."""
    last = {}
    for poll, read in facts.reads:
        if read.epoch is not None:
            offset, epoch = last.get((poll.consumer, read.key), (-1, -1))
            if read.offset > offset and read.epoch < epoch:
                yield f"{poll.consumer} saw epoch {read.epoch} at {read.key}@{read.offset} after {epoch} at {offset}"
            last[poll.consumer, read.key] = (read.offset, read.epoch)


def offset_regression(facts):
    """C13: an offset told before a question was asked is not undercut by its answer."""
    told = collections.defaultdict(list)
    for mark in sorted(facts.history.of(Mark), key=lambda mark: mark.end):
        earlier = [other for other in told[mark.what, mark.key] if other.end < mark.start and other.offset > mark.offset]
        if earlier:
            yield f"{mark.what} of {mark.key} fell from {earlier[0].offset} to {mark.offset}"
        # Only the highest of those that ended so far can be undercut; keep few.
        told[mark.what, mark.key] = sorted(told[mark.what, mark.key] + [mark], key=lambda one: -one.offset)[:32]


def tier_divergence(facts):
    """C14: a record is byte-equal whenever and from wherever it is read."""
    checksums = {}
    for poll, read in facts.reads:
        before = checksums.setdefault((read.key, read.offset), read.crc)
        if before != read.crc:
            yield f"{read.key}@{read.offset} was {before:08x} and then {read.crc:08x} for {poll.consumer}"


def stuck(facts):
    """C15: after healing every client gets on."""
    for progress in facts.history.of(Progress):
        if progress.completed < progress.expected:
            yield f"{progress.client} completed {progress.completed} operations, not {progress.expected}"


RULES = {
    "C1": aborted_read, "C2": inconsistent_offsets, "C3": lost_write, "C4": unseen, "C5": duplicate, "C6": skip_within_poll,
    "C7": skip_between_polls, "C8": nonmonotonic_send, "C9": precommitted_read, "C10": write_read_cycle, "C11": copied_once,
    "C12": epoch_regression, "C13": offset_regression, "C14": tier_divergence, "C15": stuck,
}


def check(history):
    """Every anomaly of every rule."""
    facts = Facts(history)
    return [Anomaly(rule, judge.__name__, detail) for rule, judge in RULES.items() for detail in judge(facts)]
