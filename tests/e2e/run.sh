#!/usr/bin/env bash
# The end-to-end tests. Arguments go to pytest.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here"
if ! command -v kcat >/dev/null; then
  if [ "$(id -u)" = 0 ]; then
    (apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y kcat) >/dev/null
  else
    echo "kcat is missing: install your distribution's package 'kcat'" >&2
    exit 1
  fi
fi
python=$("$here/setup.sh")
# Tests marked slow (systems of several JVMs) run when asked for: run.sh -m slow.
exec timeout -k 10 1500 "$python" -m pytest -q -p no:cacheprovider -m "not slow" "$@"
