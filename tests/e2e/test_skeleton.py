"""kcat in, a segment to the bucket, the local copy gone, kcat out."""

from confluent_kafka import Producer

from broker import wait_until
from clients import create_topic, kcat, watermarks


def test_history_is_read_across_the_seam(broker):
    create_topic(broker, "silt", segment_bytes=16384, local_retention_ms=1, local_retention_bytes=1)
    lines = b"".join(b"grain %d of silt, settling slowly\n" % number for number in range(5000))
    kcat(broker, "-P", "-t", "silt", "-X", "batch.num.messages=100", stdin=lines)
    wait_until(lambda: broker.metric("remote_segments") > 3 and broker.metric("upload_lag_bytes") == 0, "segments are in the bucket")
    wait_until(lambda: broker.metric("local_log_bytes") < 40_000, "the local copies are gone")
    assert broker.bucket_objects(), "the bucket has objects"
    assert kcat(broker, "-C", "-t", "silt", "-o", "beginning", "-e", "-q") == lines
    assert broker.metric("fetched_remote_bytes") > 0
    # From the middle, which lies in the bucket.
    middle = kcat(broker, "-C", "-t", "silt", "-o", "1234", "-c", "1", "-q")
    assert middle == b"grain 1234 of silt, settling slowly\n"
    assert broker.stop() == 0


def test_a_restart_keeps_everything(broker):
    kcat(broker, "-P", "-t", "kept", stdin=b"one\ntwo\nthree\n")
    assert broker.stop() == 0
    broker.start()
    assert sorted(kcat(broker, "-C", "-t", "kept", "-e", "-q").split()) == [b"one", b"three", b"two"]


def test_delete_records_moves_the_start_in_both_tiers(broker):
    from confluent_kafka import TopicPartition
    from confluent_kafka.admin import AdminClient

    create_topic(broker, "cut", segment_bytes=16384, local_retention_ms=1)
    kcat(broker, "-P", "-t", "cut", "-X", "batch.num.messages=50", stdin=b"".join(b"%d some text to fill it up\n" % n for n in range(3000)))
    wait_until(lambda: broker.metric("remote_segments") > 2 and broker.metric("upload_lag_bytes") == 0, "segments are in the bucket")
    admin = AdminClient({"bootstrap.servers": broker.address})
    admin.delete_records([TopicPartition("cut", 0, 1500)])[TopicPartition("cut", 0)].result(timeout=30)
    wait_until(lambda: watermarks(broker, "cut")[0] == 1500, "the low watermark moved")
    assert kcat(broker, "-C", "-t", "cut", "-o", "beginning", "-c", "1", "-q") == b"1500 some text to fill it up\n"


def test_uploads_go_on_after_records_were_deleted_before_their_upload(broker):
    """The log start may cut through a segment, or pass the bucket's end."""
    from confluent_kafka import TopicPartition
    from confluent_kafka.admin import AdminClient

    def send(start, count):
        lines = b"".join(b"%d some text to fill it up\n" % number for number in range(start, start + count))
        kcat(broker, "-P", "-t", "early", "-X", "batch.num.messages=50", stdin=lines)

    create_topic(broker, "early", segment_bytes=16384)
    send(0, 200)
    admin = AdminClient({"bootstrap.servers": broker.address})
    admin.delete_records([TopicPartition("early", 0, 120)])[TopicPartition("early", 0)].result(timeout=30)
    send(200, 2000)
    wait_until(lambda: broker.metric("remote_segments") > 1 and broker.metric("upload_lag_bytes") == 0, "segments are in the bucket")
    assert kcat(broker, "-C", "-t", "early", "-o", "beginning", "-c", "1", "-q") == b"120 some text to fill it up\n"


def test_the_bucket_checks_out_and_damage_is_found(broker):
    """`siltstone bucket fsck` on a sound bucket, then on one that lost an object and has a flipped byte in another."""
    import json
    import subprocess

    from broker import BINARY

    def fsck(*options):
        command = [BINARY, "bucket", "fsck", "--object-store", broker.object_store, "--metadata", f"http://127.0.0.1:{broker.admin_port}"]
        done = subprocess.run([*command, "--output", "json", *options], capture_output=True, timeout=60)
        return done.returncode, json.loads(done.stdout)

    create_topic(broker, "checked", segment_bytes=16384)
    kcat(broker, "-P", "-t", "checked", "-X", "batch.num.messages=50", stdin=b"".join(b"%d some text to fill it up\n" % n for n in range(4000)))
    wait_until(lambda: broker.metric("remote_segments") > 3 and broker.metric("upload_lag_bytes") == 0, "segments are in the bucket")
    code, report = fsck("--deep")
    assert code == 0 and report["findings"] == [] and report["segments"] == broker.metric("remote_segments")
    first, second = sorted(broker.bucket_objects())[:2]
    first.unlink()
    damaged = bytearray(second.read_bytes())
    damaged[200] ^= 1
    second.write_bytes(damaged)
    code, report = fsck("--deep")
    assert code != 0 and sorted(finding["problem"] for finding in report["findings"]) == ["damaged_object", "missing_object"]


def test_a_check_of_a_mistyped_bucket_makes_none(broker, tmp_path):
    import subprocess

    from broker import BINARY

    empty = tmp_path / "empty"
    empty.mkdir()
    for directory, reason in [(tmp_path / "typo", "no such directory"), (empty, "no broker has used it")]:
        command = [BINARY, "bucket", "fsck", "--object-store", f"file://{directory}", "--metadata", f"http://127.0.0.1:{broker.admin_port}"]
        done = subprocess.run(command, capture_output=True, timeout=60, text=True)
        assert done.returncode != 0 and reason in done.stderr, done
    assert not (tmp_path / "typo").exists()


def test_one_large_record_wakes_an_idle_log(broker):
    """A batch that is worth a commit by itself, on a log at rest, one after the other."""
    create_topic(broker, "large", max_message_bytes=20_000_000)
    outcomes = []
    producer = Producer({"bootstrap.servers": broker.address, "message.max.bytes": 15_000_000, "message.timeout.ms": 20_000})
    for _ in range(3):
        producer.produce("large", b"x" * 1_200_000, on_delivery=lambda error, _: outcomes.append(error))
        producer.flush(30)
    assert outcomes == [None] * 3
