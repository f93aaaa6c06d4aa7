"""/metrics against docs/metrics.md, both ways."""

import pathlib
import re

from broker import wait_until
from clients import create_topic, kcat, produce, read_all

PAGE = pathlib.Path(__file__).parents[2] / "docs/metrics.md"


def documented():
    names = re.findall(r"`(siltstone_[a-z_]+)", PAGE.read_text())
    return {name.removesuffix("_total") for name in names}


def values(text):
    """The sum of each metric's values over its labels."""
    sums = {}
    for line in text.splitlines():
        if found := re.match(r"(siltstone_[a-z_]+?)(?:_total|_count)?(?:{.*})? (\S+)$", line):
            sums[found[1]] = sums.get(found[1], 0) + float(found[2])
    return sums


def test_every_metric_is_documented_and_every_documented_one_is_there_and_moves(make_broker):
    settings = {"log.retention.check.interval.ms": 200, "metric.reporters": "siltstone.ClientTelemetry"}
    with make_broker(settings=settings) as broker:
        create_topic(broker, "t", segment_bytes=20000, local_retention_bytes=1)
        assert len(produce(broker, "t", [b"%d" % index * 100 for index in range(500)])) == 500
        wait_until(lambda: broker.metric("local_dropped_bytes") > 0, "segments to be in the bucket only")
        assert len(read_all(broker, "t")) == 500
        kcat(broker, "-G", "group", "t", "-e", "-q", "-X", "auto.offset.reset=earliest")
        text = broker.http("/metrics")
        rendered = set(re.findall(r"^# TYPE (siltstone_\w+)", text, re.M))
        assert rendered == documented()
        moved = {name.removeprefix("siltstone_") for name, value in values(text).items() if value > 0}
        assert moved >= {
            "partitions", "local_log_bytes", "remote_log_bytes", "remote_segments", "session_held", "produced_bytes", "fetched_local_bytes",
            "fetched_remote_bytes", "uploaded_segments", "uploaded_bytes", "local_dropped_bytes", "bucket_requests", "bucket_read_bytes",
            "bucket_written_bytes", "remote_cache_misses", "group", "connections_accepted", "requests", "request_bytes",
            "response_bytes", "request_latency_seconds", "request_latency_microseconds"}
        assert not {name for name in moved if name.endswith(("failures", "offline", "lost_tails", "violations", "missing_objects"))}
