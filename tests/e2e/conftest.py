"""Shared fixtures."""

import pytest
from broker import Broker


@pytest.fixture
def broker(tmp_path):
    """A broker with small segments that looks after them often."""
    with Broker(tmp_path, settings={"log.retention.check.interval.ms": 200, "group.initial.rebalance.delay.ms": 0}) as running:
        yield running


@pytest.fixture
def make_broker(tmp_path):
    """Makes brokers that are not started yet; whatever still runs at the end is killed."""
    made = []

    def make(name="broker", **options):
        made.append(Broker(tmp_path / name, **options))
        made[-1].root.mkdir(parents=True, exist_ok=True)
        return made[-1]

    yield make
    for one in made:
        one.__exit__()
