#!/usr/bin/env bash
# The benchmark table: Siltstone beside Apache Kafka (started from its Maven jars). Arguments go to run.py.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cargo build --release --locked -q -p siltstone-bench
exec python3 "$here/run.py" "$@"
