"""What a crash, a lost disk or a stranger must not do. F and I numbers are the project's faults and invariants."""

import shutil
import threading

from broker import wait_until
from clients import create_topic, kcat, produce, read_all, watermarks

import pytest


def values(count, size=200):
    return [b"%08d" % number + b"." * size for number in range(count)]


def test_kill_9_under_load_loses_nothing_acknowledged(broker):
    """F1, I3: with small segments, so that rolls and uploads are under way when the broker dies."""
    create_topic(broker, "load", 3, segment_bytes=65536, local_retention_ms=1)
    acknowledged = {}

    def send():
        acknowledged.update(produce(broker, "load", values(60_000)))

    sender = threading.Thread(target=send)
    sender.start()
    for round_number in range(3):
        wait_until(lambda: broker.metric("produced_bytes") > 1_000_000, f"round {round_number}: data flows")
        broker.kill()
        broker.start()
    sender.join(120)
    assert not sender.is_alive() and len(acknowledged) > 10_000
    read = read_all(broker, "load", 3)
    lost = [place for place, value in acknowledged.items() if read.get(place) != value]
    assert not lost, f"{len(lost)} acknowledged records are gone or changed, such as {lost[:3]}"
    assert len(set(read.values())) == len(read), "I8: a record was stored twice"


@pytest.mark.parametrize("point", ["upload.after-intent", "upload.after-put", "upload.after-commit"])
def test_a_crash_at_each_point_of_an_upload(make_broker, point):
    """F8, I24, I31: nothing is lost and nothing is doubled, whatever the point."""
    settings = {"log.retention.check.interval.ms": 200}
    broker = make_broker(settings=settings, env={"SILTSTONE_FAULTS": f"{point}=crash"})
    broker.start()
    create_topic(broker, "points", segment_bytes=32768, local_retention_ms=1)
    acknowledged = produce(broker, "points", values(1000), **{"message.timeout.ms": 8000})
    broker.process.wait(timeout=30)
    broker.env.pop("SILTSTONE_FAULTS")
    broker.start()
    wait_until(lambda: broker.metric("upload_lag_bytes") == 0 and broker.metric("remote_segments") > 0, "the upload was made up for")
    read = read_all(broker, "points")
    assert all(read[place] == value for place, value in acknowledged.items())


def test_a_lost_disk_leaves_what_the_bucket_has(broker):
    """F28: everything local goes but the metadata; the log goes on after the last committed remote offset."""
    create_topic(broker, "disk", segment_bytes=65536)
    acknowledged = produce(broker, "disk", values(5000))
    wait_until(lambda: broker.metric("remote_segments") > 3 and broker.metric("upload_lag_bytes") == 0, "segments are in the bucket")
    broker.kill()
    shutil.rmtree(broker.data / "broker")
    broker.start()
    low, high = watermarks(broker, "disk")
    assert low == 0 and 0 < high < 5000
    read = read_all(broker, "disk")
    assert read == {place: value for place, value in acknowledged.items() if place[1] < high}
    assert broker.log().count("the local log ends before the bucket's copy") == 1
    assert broker.metric("lost_tails") == 1
    kcat(broker, "-P", "-t", "disk", stdin=b"after\n")
    assert read_all(broker, "disk", start=high) == {(0, high): b"after"}


def test_the_disk_budget_holds_whatever_local_retention_says(make_broker):
    broker = make_broker(settings={"log.retention.check.interval.ms": 200}, options=["--disk-budget", "400000"])
    with broker:
        create_topic(broker, "big", segment_bytes=65536)
        acknowledged = produce(broker, "big", values(20_000))
        wait_until(lambda: broker.metric("local_dropped_bytes") > 2_000_000, "uploaded segments went")
        assert read_all(broker, "big") == acknowledged
        assert "disk_budget is less than the write-ahead log alone may take" in broker.log()


def test_a_second_broker_on_the_same_directory_is_refused(broker, make_broker):
    second = make_broker("second")
    second.data = broker.data
    with pytest.raises(RuntimeError, match="in use|Locked|lock"):
        second.start()


def test_a_bucket_of_another_cluster_is_refused(broker, make_broker):
    """I33"""
    second = make_broker("second", object_store=broker.object_store)
    with pytest.raises(RuntimeError, match="cluster"):
        second.start()


def test_an_outage_of_the_bucket_only_delays_uploads(make_broker):
    """F30, I35: the broker starts without its bucket and takes records."""
    broker = make_broker(object_store="s3://nowhere/prefix", options=["--s3-endpoint", "http://127.0.0.1:9"],
                         env={"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"})
    with broker:
        create_topic(broker, "alone", segment_bytes=32768)
        acknowledged = produce(broker, "alone", values(2000))
        assert len(acknowledged) == 2000 and read_all(broker, "alone") == acknowledged
        assert broker.metric("upload_lag_bytes") > 0
        assert broker.stop() == 0


def test_unknown_settings_are_refused_with_the_nearest_name(make_broker):
    with pytest.raises(RuntimeError, match="num.partitions"):
        make_broker(settings={"num.partition": 3}).start()
