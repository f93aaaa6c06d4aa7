#!/usr/bin/env bash
# make dev: a local S3 store (MinIO, or versitygw by STORE=versitygw) and a broker on it. Ctrl-C stops both.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
store=${STORE:-minio}
port=${STORE_PORT:-9000}
data=${DATA:-data-dev}
export AWS_ACCESS_KEY_ID=${AWS_ACCESS_KEY_ID:-siltstone} AWS_SECRET_ACCESS_KEY=${AWS_SECRET_ACCESS_KEY:-siltstone-secret} AWS_REGION=${AWS_REGION:-us-east-1}
"$here/store.sh" build "$store"
# Both stores show a directory as a bucket.
mkdir -p "$data/s3/siltstone"
"$here/store.sh" start "$store" "$port" "$data/s3" &
store_pid=$!
trap 'kill $store_pid 2>/dev/null || true' EXIT
for _ in $(seq 100); do
  (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break
  sleep 0.1
done
SILTSTONE_BANNER=1 "$SILTSTONE_BIN" serve --data-dir "$data" --object-store s3://siltstone/cluster --s3-endpoint "http://127.0.0.1:$port" "$@"
