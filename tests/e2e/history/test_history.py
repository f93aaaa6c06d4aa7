"""The history checker over a live broker with small segments, so that tiering is always busy. HISTORY_SECONDS lengthens the run, HISTORY_SEED changes it."""

import os
import shutil
import sys

import pytest
from broker import Broker, wait_until
from checker import check
from clients import create_topic
from faulty_store import FaultyStore
from test_s3 import KEYS, Store
from workload import Run

pytestmark = pytest.mark.slow
SECONDS = float(os.environ.get("HISTORY_SECONDS", "20"))
SEED = int(os.environ.get("HISTORY_SEED", "1"))


SETTINGS = {"log.retention.check.interval.ms": 200, "group.initial.rebalance.delay.ms": 0, "offsets.topic.num.partitions": 5,
            "transaction.state.log.num.partitions": 5}


def run_on(broker):
    for topic, partitions in (("in", 3), ("out", 1)):
        create_topic(broker, topic, partitions, segment_bytes=65536, local_retention_ms=1)
    return Run(broker, seed=SEED)


@pytest.fixture
def history_run(tmp_path):
    with Broker(tmp_path, settings=SETTINGS) as broker:
        yield run_on(broker)


@pytest.fixture
def store(tmp_path):
    """An S3 store, and a proxy before it that can misbehave."""
    store = Store(tmp_path / "s3")
    store.start()
    yield FaultyStore(store.port, SEED)
    store.stop()


def verdict(run, tmp_path):
    anomalies = check(run.history)
    if anomalies:
        path = tmp_path / "history.jsonl"
        run.history.save(path)
        print(f"history: {path}", *anomalies[:20], sep="\n", file=sys.stderr)
    return anomalies


def test_crashes_and_pauses_leave_a_clean_history(history_run, tmp_path):
    """C1 to C15 under F1, F5, F8 and F9."""
    run = history_run
    run.start()
    wait_until(lambda: all(client.completed > 20 for client in run.waited_for()), "every client works")
    rounds = max(2, int(SECONDS / 10))
    for number in range(rounds):
        run.crash() if number % 3 != 2 else run.pause(2)
        run.stopping.wait(SECONDS / rounds)
    run.healed()
    run.stop()
    run.final_poll("final")
    wait_until(lambda: run.broker.metric("upload_lag_bytes") == 0 and run.broker.metric("local_dropped_bytes") > 0, "sealed segments are remote only")
    local, remote = len(run.final_poll("again")), run.broker.metric("remote_segments")
    assert verdict(run, tmp_path) == []
    assert local > 1000 and remote > 3


def test_a_store_that_misbehaves_leaves_a_clean_history(store, tmp_path):
    """C1 to C15 under F30 to F37, with a crash between."""
    options = ["--s3-endpoint", f"http://127.0.0.1:{store.port}"]
    with Broker(tmp_path, settings=SETTINGS, object_store="s3://bucket/cluster", options=options, env=KEYS) as broker:
        run = run_on(broker)
        run.start()
        wait_until(lambda: all(client.completed > 20 for client in run.waited_for()), "every client works")
        faults = [{"reset": 1}, {"error": 0.4}, {"denied": 1}, {"lost_reply": 0.3}, {"slow": 0.3}, {"corrupt": 0.3, "truncated": 0.3}]
        run.random.shuffle(faults)
        for rates in faults:
            store.rates = rates
            run.stopping.wait(SECONDS / len(faults))
            if run.random.random() < 0.4:
                run.crash()
        store.rates = {}
        run.healed()
        run.stop()
        run.final_poll("final")
        wait_until(lambda: broker.metric("upload_lag_bytes") == 0 and broker.metric("local_dropped_bytes") > 0, "uploads are made up for", 90)
        assert len(run.final_poll("again")) > 1000 and len(store.counts) > 4
        assert verdict(run, tmp_path) == []


def test_the_checker_sees_a_lost_disk(history_run, tmp_path):
    """Negative control, F28: with one copy, records that were acknowledged and not yet uploaded are gone, and the checker must say so."""
    run = history_run
    run.start()
    wait_until(lambda: all(client.completed > 50 for client in run.waited_for()), "every client works")
    run.stop()
    run.broker.kill()
    shutil.rmtree(run.broker.data / "broker")
    run.broker.start()
    # A transaction whose marker was lost with the disk holds the last stable offset back: its outcome is gone too.
    run.final_poll("final", isolation="read_uncommitted")
    assert {"C3", "C4"} & {anomaly.rule for anomaly in verdict(run, tmp_path)}
