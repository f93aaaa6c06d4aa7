#!/usr/bin/env bash
# An S3 store for development and tests: store.sh build NAME | store.sh start NAME PORT DIR. NAME is minio or versitygw; both are built by Go once
# and kept in the cache. `start` execs the store; keys are in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.
set -euo pipefail
cache="${SILTSTONE_CACHE:-$HOME/.cache/siltstone}"
versitygw=github.com/versity/versitygw/cmd/versitygw@v1.8.0
minio=github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c

path_of() { # NAME: the binary, one folder per version.
  case "$1" in
    versitygw) echo "$cache/versitygw-${versitygw##*@}/versitygw" ;;
    minio) command -v minio || echo "$cache/minio-${minio##*@}/minio" ;;
    *) echo "unknown store '$1', use minio or versitygw" >&2; return 1 ;;
  esac
}

build() {
  local binary
  binary=$(path_of "$1")
  [ -x "$binary" ] && return
  command -v go >/dev/null || { echo "building $1 needs Go: install it, or put a '$1' binary on the PATH" >&2; exit 1; }
  echo "building $1 (once)" >&2
  mkdir -p "$(dirname "$binary")"
  local module=$versitygw
  [ "$1" = minio ] && module=$minio
  GOBIN=$(dirname "$binary") CGO_ENABLED=0 go install -trimpath -ldflags '-s -w' "$module" >&2
}

start() {
  local name=$1 port=$2 dir=$3
  build "$name"
  mkdir -p "$dir"
  case "$name" in
    versitygw) exec "$(path_of versitygw)" --access "$AWS_ACCESS_KEY_ID" --secret "$AWS_SECRET_ACCESS_KEY" --port "127.0.0.1:$port" --quiet posix "$dir" ;;
    minio)
      MINIO_ROOT_USER=$AWS_ACCESS_KEY_ID MINIO_ROOT_PASSWORD=$AWS_SECRET_ACCESS_KEY MINIO_BROWSER=off \
        exec "$(path_of minio)" server --address "127.0.0.1:$port" --console-address 127.0.0.1:0 --quiet "$dir" ;;
  esac
}

"$@"
