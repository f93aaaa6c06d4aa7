"""Negative controls: a clean history passes, and one seeded bug per rule is flagged by that rule."""

import copy

import pytest
from checker import RULES, check
from events import FAIL, INFO, OK, History, Mark, Poll, Progress, Read, Send, Txn


def clean():
    """Two producers, a committed, an aborted and an unknown transaction, a copier, and readers of both tiers."""
    sends = [Send("p1", "t/0", f"a{n}", OK, n) for n in range(4)]
    sends += [Send("p2", "t/0", "b0", OK, 4, txn="commit"), Send("p2", "t/0", "b1", OK, 6, txn="abort"), Send("p2", "t/0", "b2", OK, 8, txn="unknown"),
              Send("p2", "t/1", "b3", OK, 0, txn="unknown"), Send("p1", "t/0", "lost", FAIL), Send("p1", "t/0", "maybe", INFO)]
    sends += [Send("c1", "out/0", f"copy{n}", OK, n, txn="copy") for n in range(2)]
    seen = [(0, "a0"), (1, "a1"), (2, "a2"), (3, "a3"), (4, "b0"), (8, "b2"), (10, "maybe")]
    reads = [Read("t/0", offset, value, crc=offset, epoch=1) for offset, value in seen]
    other = [Read("t/1", 0, "b3", crc=77, epoch=0), Read("out/0", 0, "copy0", crc=5), Read("out/0", 1, "copy1", crc=6)]
    txns = [Txn("commit", OK), Txn("abort", FAIL), Txn("unknown", INFO), Txn("copy", OK, {"t/0@0": "copy0", "t/0@1": "copy1"})]
    polls = [Poll("r1", "r1-1", reads[:3]), Poll("r1", "r1-1", reads[3:] + other), Poll("r2", "r2-1", copy.deepcopy(reads), final=["t/0"]),
             Poll("c1", "c1-1", copy.deepcopy(reads[:2]), txn="copy")]
    marks = [Mark("latest", "t/0", 5, 0.0, 1.0), Mark("latest", "t/0", 9, 0.5, 2.0), Mark("latest", "t/0", 8, 1.5, 3.0), Mark("committed g", "t/0", 2, 1.0, 2.0)]
    return History([*sends, *txns, *polls, *marks, Progress("p1", 120, 100)])


def send(history, value):
    return next(event for event in history.of(Send) if event.value == value)


def polls(history):
    return history.of(Poll)


def read_everywhere(history, read):
    for poll in polls(history)[1:3]:
        poll.reads.append(copy.copy(read))


def c1_aborted(history):
    read_everywhere(history, Read("t/0", 11, "b1"))
    send(history, "b1").offset = 11


def c1_failed(history):
    read_everywhere(history, Read("t/0", 11, "lost"))


def c1_invented(history):
    read_everywhere(history, Read("t/0", 11, "who?"))


def c2_two_values(history):
    polls(history)[2].reads[2].value = "a0"


def c2_wrong_partition(history):
    send(history, "b3").key = "t/0"


def c3_acknowledged(history):
    for poll in polls(history):
        poll.reads = [read for read in poll.reads if read.value != "a2"]


def c3_half_a_transaction(history):
    for poll in polls(history):
        poll.reads = [read for read in poll.reads if read.value != "b2"]


def c3_gone_at_the_end(history):
    polls(history)[2].reads = polls(history)[2].reads[:-1]


def c4_tail(history):
    history.add(Send("p1", "t/0", "tail", OK, 12))


def c5_twice(history):
    read_everywhere(history, Read("t/0", 12, "a0"))


def c6_skip(history):
    del polls(history)[2].reads[1]


def c6_back(history):
    reads = polls(history)[2].reads
    reads[1], reads[2] = reads[2], reads[1]


def c7_skip(history):
    del polls(history)[1].reads[0]


def c7_again(history):
    polls(history)[1].reads.insert(0, copy.copy(polls(history)[0].reads[2]))


def c8_order(history):
    send(history, "a1").offset, send(history, "a2").offset = 2, 1


def c9_own(history):
    polls(history)[3].reads.append(Read("out/0", 0, "copy0", crc=5))


def c10_cycle(history):
    history.add(Poll("x", "x-1", [Read("out/0", 0, "copy0", crc=5)], txn="commit"))
    history.add(Poll("y", "y-1", [Read("t/0", 4, "b0", crc=4)], txn="copy"))


def c11_twice(history):
    history.add(Send("c2", "out/0", "copy0 again", OK, 3, txn="copy2"))
    history.add(Txn("copy2", OK, {"t/0@0": "copy0 again"}))
    polls(history)[1].reads.append(Read("out/0", 3, "copy0 again"))


def c11_never(history):
    history.of(Txn)[3].copies["t/0@2"] = "copy2"


def c12_epoch(history):
    polls(history)[2].reads[4].epoch = 0


def c13_latest(history):
    history.add(Mark("latest", "t/0", 4, 1.5, 4.0))


def c13_committed(history):
    history.add(Mark("committed g", "t/0", 1, 3.0, 4.0))


def c14_bytes(history):
    polls(history)[2].reads[0].crc = 99


def c15_stuck(history):
    history.add(Progress("p9", 3, 100))


BUGS = [bug for name, bug in list(globals().items()) if name[0] == "c" and name[1].isdigit()]


def test_a_clean_history_has_no_anomaly():
    assert check(clean()) == []


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_a_seeded_bug_is_flagged_by_its_rule(bug):
    history = clean()
    bug(history)
    assert bug.__name__.split("_")[0].upper() in {anomaly.rule for anomaly in check(history)}


def test_every_rule_has_a_seeded_bug():
    assert {bug.__name__.split("_")[0].upper() for bug in BUGS} == set(RULES)
