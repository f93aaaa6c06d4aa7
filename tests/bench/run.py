#!/usr/bin/env python3
"""Siltstone beside Apache Kafka in one run: broker CPU-seconds per GB, and ratios.

Both brokers run on this machine, one after the other per row, warmed up, Siltstone syncing before each acknowledgement, Kafka without flush. Both
keep all on the local disk (topics with remote.storage.enable=false: Kafka has no other tier by itself); what tiering to a local directory adds has a row
of its own. A fetch row reads the
whole topic once before it is measured. Only the ratios of one run mean anything.
Usage: run.py [--gigabytes N] [--warm-up N] [--without-kafka]
"""

import argparse
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).parent
SILTSTONE = os.environ["SILTSTONE_BIN"]
BENCH = pathlib.Path(os.environ["CARGO_TARGET_DIR"]) / "release/siltstone-bench"
KAFKA = HERE.parent / "compat/kafka.sh"
# Small segments whose local copies go at once.
COLD = ["--set", "log.segment.bytes=33554432", "--set", "log.local.retention.bytes=1"]

PRODUCE = [(codec, partitions) for codec in ("none", "lz4") for partitions in (1, 100)]
FETCH = [("none", 1), ("none", 100), ("lz4", 1)]


class Siltstone:
    def __init__(self, directory, settings):
        start = time.monotonic()
        command = [SILTSTONE, "serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data-dir", directory, *settings]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.address = self.process.stdout.readline().decode().split()[-1]
        self.pid, self.started_ms = self.process.pid, (time.monotonic() - start) * 1000

    def stop(self):
        os.kill(self.pid, signal.SIGKILL)
        self.process.wait()


class Kafka:
    def __init__(self, directory):
        start = time.monotonic()
        self.directory = directory
        command = [KAFKA, "start", "--port", "0", "--data", directory, "--heap", "1g", "--set", "broker.session.timeout.ms=60000"]
        pid, port = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.split()[-2:]
        self.pid, self.address, self.started_ms = int(pid), f"127.0.0.1:{int(port)}", (time.monotonic() - start) * 1000

    def stop(self):
        subprocess.run([KAFKA, "stop", "--data", self.directory, "--kill"], check=False)


def resident_mb(broker):
    return int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{broker.pid}/status").read_text())[1]) / 1024


def bench(*arguments):
    done = subprocess.run([BENCH, *map(str, arguments)], capture_output=True, text=True, timeout=900)
    if done.returncode != 0:
        print(f"  {arguments[0]} failed: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
    return done.stdout


def load(broker, *arguments):
    """CPU-s per GB, or None if it failed."""
    found = re.search(r"([\d.]+) CPU-s/GB", bench(*arguments, "--broker", broker.address, "--pid", broker.pid))
    return float(found[1]) if found else None


def probe():
    return float(re.search(r"([\d.]+) CPU-s/GB", bench("probe", "--gigabytes", 1))[1])


def row(name, ours, theirs, target):
    show = lambda figure: "failed" if figure is None else f"{figure:.2f}"
    ratio = f"1/{theirs / ours:.1f}" if ours and theirs else "-"
    print(f"{name:<40} {show(ours):>10} {show(theirs):>10} {ratio:>8} {target:>8}", flush=True)


def compare(siltstone, kafka, options):
    brokers = [siltstone] + ([kafka] if kafka else [])
    both = lambda *arguments: ([load(broker, *arguments) for broker in brokers] + [None])[:2]
    amounts = ["--gigabytes", options.gigabytes, "--warm-up", options.warm_up]
    print(f"{'broker CPU-s per GB':<40} {'Siltstone':>10} {'Kafka':>10} {'ratio':>8} {'target':>8}")
    for codec, partitions in PRODUCE:
        row(f"produce 1 KiB, {codec}, {partitions} partitions", *both("produce", "--codec", codec, "--partitions", partitions, "--topic", f"{codec}-{partitions}", *amounts), "1/8")
    for codec, partitions in FETCH:
        warm = ["--gigabytes", options.gigabytes, "--warm-up", options.gigabytes + options.warm_up]
        row(f"fetch, {codec}, {partitions} partitions", *both("fetch", "--partitions", partitions, "--topic", f"{codec}-{partitions}", *warm), "1/4")
    print(f"sendfile probe: {probe():.3f} CPU-s/GB (fetch target: twice that)")
    print("resident after the run: " + ", ".join(f"{type(broker).__name__} {resident_mb(broker):.0f} MB" for broker in brokers))


def start_to_ack(directory):
    start = time.monotonic()
    broker = Siltstone(directory, [])
    bench("produce", "--topic", "first", "--gigabytes", 0, "--warm-up", 0, "--broker", broker.address, "--pid", broker.pid)
    took_ms = (time.monotonic() - start) * 1000
    print(f"start to first acknowledged record: {took_ms:.0f} ms (listening after {broker.started_ms:.0f} ms; with the generator's own start and CreateTopics)")
    broker.stop()


def beside_cold_reader(directory, options):
    """p99 of one producer that waits for each acknowledgement: alone, beside a reader of what only the bucket has, and, as a control, beside a process
    that does nothing but keep a core busy, as the reader's own process does; in turn, the medians."""
    broker = Siltstone(directory, COLD)
    target = ["--broker", broker.address, "--pid", str(broker.pid)]
    bench("produce", "--topic", "cold", "--tiered", "--gigabytes", 1, *target)
    time.sleep(5)
    beside = {"alone": None, "cold": [BENCH, "fetch", "--topic", "cold", "--gigabytes", "100", *target], "busy": [sys.executable, "-c", "while True: pass"]}
    p99 = {name: [] for name in beside}
    for name in list(beside) * 3:
        other = beside[name] and subprocess.Popen(beside[name], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(0.5)
        out = bench("produce", "--topic", "live", "--in-flight", 1, "--batch-bytes", 16384, "--gigabytes", 0.03, "--warm-up", 0.003, *target)
        if other:
            other.kill()
            other.wait()
        p99[name].append(float(re.search(r"p99 ([\d.]+)", out)[1]))
    alone, cold, busy = (sorted(figures)[1] for figures in p99.values())
    print(f"produce p99, 16 KiB, one in flight: {alone:.2f} ms; beside a cold reader flat out {cold:.2f} ms, {cold / alone:.1f} times (target 1.2); "
          f"beside a busy process {busy:.2f} ms, {busy / alone:.1f} times")
    broker.stop()


def many_partitions(directory):
    """Acknowledgements of 1,000 partitions: the rate with a sync before each beside the rate with flushing left to the system; in turn, the medians."""
    broker = Siltstone(directory, [])
    rates = {"1": [], "1000000000": []}
    for turn in range(6):
        flush = list(rates)[turn % 2]
        out = bench("produce", "--topic", f"many-{flush}", "--flush-messages", flush, "--partitions", 1000, "--batch-bytes", 16384, "--in-flight", 64,
                    "--gigabytes", 0.3, "--warm-up", 0.1, "--broker", broker.address, "--pid", broker.pid)
        rates[flush].append(float(re.search(r"([\d.]+) MB/s", out)[1]))
    durable, own = (sorted(figures)[1] for figures in rates.values())
    print(f"1,000 partitions, 16 KiB, 64 in flight: durable {durable:.0f} MB/s, without flush {own:.0f} MB/s, {durable / own:.0%} (target 80%)")
    broker.stop()


def tiered(directory, options):
    broker = Siltstone(directory, [])
    cost = load(broker, "produce", "--topic", "tiered", "--tiered", "--gigabytes", options.gigabytes, "--warm-up", options.warm_up)
    row("produce 1 KiB, none, 1 partition, tiered", cost, None, "-")
    broker.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--warm-up", type=float, default=1.0)
    parser.add_argument("--without-kafka", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="siltstone-bench-") as root:
        start_to_ack(f"{root}/first")
        siltstone = Siltstone(f"{root}/siltstone", [])
        kafka = None
        try:
            kafka = None if options.without_kafka else Kafka(f"{root}/kafka")
            time.sleep(2)
            print(f"sendfile probe: {probe():.3f} CPU-s/GB")
            print("idle: " + ", ".join(f"{type(broker).__name__} {resident_mb(broker):.0f} MB, listening after {broker.started_ms:.0f} ms" for broker in (siltstone, kafka) if broker))
            compare(siltstone, kafka, options)
        finally:
            siltstone.stop()
            if kafka:
                kafka.stop()
        for name in ("siltstone", "kafka"):
            shutil.rmtree(f"{root}/{name}", ignore_errors=True)
        tiered(f"{root}/tiered", options)
        many_partitions(f"{root}/many")
        beside_cold_reader(f"{root}/cold", options)


if __name__ == "__main__":
    sys.exit(main())
