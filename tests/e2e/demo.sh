#!/usr/bin/env bash
# The whole story in under a minute, on real data. See flights.py.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
python=$("$here/setup.sh")
exec "$python" "$here/flights.py"
