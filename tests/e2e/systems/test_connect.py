"""Kafka Connect, distributed: lines of a file go through a topic into another file, with the worker killed on the way."""

from broker import wait_until
from clients import create_topic, read_all
from connect import Worker


def numbered(first, last):
    return [f"line {number}" for number in range(first, last)]


def append(path, lines):
    with path.open("a") as file:
        file.write("".join(f"{line}\n" for line in lines))


def test_file_to_file_with_an_exactly_once_source(broker, tmp_path):
    create_topic(broker, "lines", segment_bytes=65536)
    source, sink = tmp_path / "in.txt", tmp_path / "out.txt"
    append(source, numbered(0, 500))
    with Worker(tmp_path, broker, exactly_once_source_support="enabled") as worker:
        worker.connect("source", "org.apache.kafka.connect.file.FileStreamSourceConnector", file=str(source), topic="lines")
        worker.connect("sink", "org.apache.kafka.connect.file.FileStreamSinkConnector", file=str(sink), topics="lines")
        wait_until(lambda: sink.exists() and len(sink.read_text().splitlines()) >= 500, "the first lines came through", 60)
        append(source, numbered(500, 2000))
        worker.java.kill()
        worker.start()
        wait_until(lambda: "line 1999" in sink.read_text(), "the last lines came through after the crash", 90)
        append(source, ["the end"])
        wait_until(lambda: "the end" in sink.read_text(), "both connectors live", 60)
    # The source's lines are in the topic once, in order; the sink may repeat what it had not yet committed.
    committed = [value.decode() for _, value in sorted(read_all(broker, "lines").items())]
    assert committed == [*numbered(0, 2000), "the end"]
    assert set(sink.read_text().splitlines()) == set(committed)
