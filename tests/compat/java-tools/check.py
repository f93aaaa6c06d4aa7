#!/usr/bin/env python3
"""Compares what Kafka's tools printed against a broker with what they print against Apache Kafka.

check.py RESULTS GOLDEN EXCUSES            print NAME,PASS|FAIL per case, and the differences on stderr
check.py --record RESULTS GOLDEN           keep the results, normalised, as the golden file
"""

import difflib
import fnmatch
import re
import sys
import tomllib

# What differs from run to run, by pattern; applied line by line, in this order.
VOLATILE = [
    (r"^\s+(at|\.\.\.) .*$", None),  # a stack trace
    (r"127\.0\.0\.1:\d+", "$B"),
    (r"(127\.0\.0\.1 +)\d+", r"\1<port>"),
    (r"(TopicId: |Cluster ID: |ClusterId: +)\S+", r"\1<id>"),
    (r'("directoryId": ")[^"]*"', r'\1<id>"'),
    (r"(console-consumer|perf-consumer|test-group)-\d+", r"\1-<n>"),
    (r'("logDir":"|"log_dirs":\[")/[^"]*"', r'\1<dir>"'),
    (r'"size":[1-9]\d*', '"size":<size>'),
    (r'"timestamp":\d{13}', '"timestamp":<now>'),
    (r"(Epoch: |HighWatermark: +|LeaderEpoch: +)\d+", r"\1<n>"),
    (r"^(\d+\s+)\S+(\s+)\d+(\s+0\s+)\d{13}(\s+)\d{13}", r"\1<id>\2<n>\3<now>\4<now>"),
    (r'("avg_throughput":)[\d.]+', r"\1<n>"),
    (r"args '[^']*'", "args '…'"),
    (r"^\s+(\(principal=)", r"\1"),  # the first of a list stands further in
    (r" {2,}", " "),
]
NUMBER = (r"\d+(\.\d+)?", "<number>")


def normalise(name, lines):
    """The lines without what differs from run to run. "any order" and "numbers" in a case's name say what else does."""
    rules = VOLATILE + ([NUMBER] if "(numbers)" in name else [])
    kept = []
    for line in lines:
        if line.startswith("$ "):
            kept.append(line)
            continue
        for pattern, replacement in rules:
            if replacement is None:
                line = None if re.search(pattern, line) else line
            else:
                line = re.sub(pattern, replacement, line)
            if line is None:
                break
        if line is not None:
            kept.append(line.rstrip())
    if "(any order)" not in name:
        return kept
    kept = [re.sub(r"\S+", lambda m: in_order(m[0]), line) if not line.startswith("$ ") else line for line in kept]
    commands, part = [], []
    for line in kept:
        part.append(line)
        if line.startswith("--- "):
            commands += part[:1] + sorted(part[1:-1]) + part[-1:]
            part = []
    return commands + part


def in_order(word):
    """A JSON list of partitions, or a comma-separated list of them, sorted."""
    if word.startswith('{"brokers"'):
        return re.sub(r"\{\"partition\":.*?\}(?=\])", lambda m: ",".join(sorted(re.findall(r"\{.*?\}", m[0]))), word)
    return ",".join(sorted(word.split(","))) if re.fullmatch(r"[\w.]+-\d+(,[\w.]+-\d+)*", word) else word


def read(path):
    cases, name = {}, None
    for line in open(path, encoding="utf-8").read().split("\n"):
        if line.startswith("=== "):
            name = line[4:]
            cases[name] = []
        elif name:
            cases[name].append(line)
    return {name: normalise(name, lines) for name, lines in cases.items()}


def excused(name, lines, excuses, used):
    """The lines after the substitutions that apply to this case."""
    result = []
    for line in lines:
        for index, excuse in enumerate(excuses):
            if any(fnmatch.fnmatch(name, pattern) for pattern in excuse["cases"]):
                changed = re.sub(excuse["pattern"], excuse.get("becomes", ""), line)
                if changed != line:
                    used.add(index)
                line = changed
        if line.strip():
            result.append(line)
    return result


def main():
    if sys.argv[1] == "--record":
        with open(sys.argv[3], "w", encoding="utf-8") as out:
            for name, lines in read(sys.argv[2]).items():
                out.write("\n".join([f"=== {name}"] + lines).rstrip() + "\n")
        return 0
    results, golden = read(sys.argv[1]), read(sys.argv[2])
    excuses = tomllib.load(open(sys.argv[3], "rb")).get("excuse", [])
    used = set()
    for name, lines in results.items():
        ours = excused(name, lines, excuses, used)
        kafkas = excused(name, golden.get(name, ["(not recorded)"]), excuses, used)
        short = name.split(" (")[0]
        print(f"{short},{'PASS' if ours == kafkas else 'FAIL'}")
        if ours != kafkas:
            diff = difflib.unified_diff(kafkas, ours, "kafka", "ours", lineterm="", n=1)
            print(f"{name}\n  " + "\n  ".join(list(diff)[2:]), file=sys.stderr)
    if len(results) == len(golden):
        for index, excuse in enumerate(excuses):
            if index not in used:
                print(f"excuse-no-longer-needed/{excuse['pattern'].replace(',', ';')},FAIL")
    return 0


if __name__ == "__main__":
    sys.exit(main())
