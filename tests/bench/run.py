#!/usr/bin/env python3
"""Siltstone beside Apache Kafka in one run: broker CPU-seconds per GB, and ratios.

Both brokers run on this machine, one after the other per row, warmed up, Siltstone syncing before each acknowledgement, Kafka without flush.
Only the ratios of one run mean anything. Usage: run.py [--gigabytes N] [--warm-up N] [--without-kafka]
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

ROWS = [
    ("produce 1 KiB, none, 1 partition", ["produce", "--codec", "none", "--partitions", "1", "--topic", "none-1"], 8),
    ("produce 1 KiB, none, 100 partitions", ["produce", "--codec", "none", "--partitions", "100", "--topic", "none-100"], 8),
    ("produce 1 KiB, lz4, 1 partition", ["produce", "--codec", "lz4", "--partitions", "1", "--topic", "lz4-1"], 8),
    ("produce 1 KiB, lz4, 100 partitions", ["produce", "--codec", "lz4", "--partitions", "100", "--topic", "lz4-100"], 8),
    ("fetch, none, 1 partition", ["fetch", "--partitions", "1", "--topic", "none-1"], 4),
    ("fetch, lz4, 1 partition", ["fetch", "--partitions", "1", "--topic", "lz4-1"], 4),
]


def start_siltstone(directory):
    start = time.monotonic()
    command = [SILTSTONE, "serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data-dir", directory, "--set", "log.retention.bytes=1000000000"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    address = process.stdout.readline().decode().split()[-1]
    return process.pid, address, (time.monotonic() - start) * 1000


def start_kafka(directory):
    start = time.monotonic()
    command = [KAFKA, "start", "--port", "0", "--data", directory, "--heap", "1g", "--set", "log.retention.bytes=1000000000"]
    pid, port = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.split()[-2:]
    return int(pid), f"127.0.0.1:{int(port)}", (time.monotonic() - start) * 1000


def resident_mb(pid):
    return int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())[1]) / 1024


def load(pid, address, arguments, options):
    command = [BENCH, *arguments, "--broker", address, "--pid", str(pid), "--gigabytes", str(options.gigabytes), "--warm-up", str(options.warm_up)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    found = re.search(r"([\d.]+) CPU-s/GB, (\d+) MB/s", done.stdout)
    if not found:
        return None
    return float(found[1]), int(found[2])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--warm-up", type=float, default=1.0)
    parser.add_argument("--without-kafka", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="siltstone-bench-") as root:
        pid, address, started_ms = start_siltstone(f"{root}/siltstone")
        kafka_data = f"{root}/kafka"
        kafka = None if options.without_kafka else start_kafka(kafka_data)
        time.sleep(2)
        probe = subprocess.run([BENCH, "probe", "--gigabytes", "2"], capture_output=True, text=True, check=True).stdout
        print(f"sendfile probe: {re.search(r'([0-9.]+) CPU-s/GB', probe)[1]} CPU-s/GB")
        print(f"start: Siltstone {started_ms:.0f} ms, {resident_mb(pid):.0f} MB idle" + (f"; Kafka {kafka[2]:.0f} ms, {resident_mb(kafka[0]):.0f} MB idle" if kafka else ""))
        print(f"{'broker CPU-s per GB':<40} {'Siltstone':>10} {'Kafka':>10} {'ratio':>8} {'target':>8}")
        try:
            for name, arguments, target in ROWS:
                ours = load(pid, address, arguments, options)
                theirs = load(kafka[0], kafka[1], arguments, options) if kafka else None
                ratio = f"1/{theirs[0] / ours[0]:.1f}" if ours and theirs else "-"
                show = lambda figure: f"{figure[0]:.2f}" if figure else "failed"
                print(f"{name:<40} {show(ours):>10} {show(theirs) if kafka else '-':>10} {ratio:>8} {'1/' + str(target):>8}", flush=True)
            print(f"resident after the run: Siltstone {resident_mb(pid):.0f} MB" + (f", Kafka {resident_mb(kafka[0]):.0f} MB" if kafka else ""))
        finally:
            os.kill(pid, signal.SIGKILL)
            if kafka:
                subprocess.run([KAFKA, "stop", "--data", kafka_data, "--kill"], check=False)
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
