#!/usr/bin/env bash
# run.sh [SUITE…]: run outside clients and suites against Siltstone. See README.md.
#
# Suites: fast (default: smoke scripts that need no heavy build), smoke, java-tools, librdkafka (quick mode), librdkafka-full (not
# quick), librdkafka-idempotent (quick, every producer idempotent), kafka-clients (kafka-clients-fast: a minute of it), kafka-python, rust-rdkafka, rskafka, franz-go, sarama, kafka-go, all.
# Environment: SILTSTONE_BIN, SILTSTONE_CACHE, COMPAT_BROKER=siltstone|kafka|HOST:PORT, COMPAT_ALL=1 (not only the allow-list),
# COMPAT_ONLY=NAME… (only these), COMPAT_JOBS, COMPAT_WORK (keep logs there).
set -uo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

work=${COMPAT_WORK:-$(mktemp -d "${TMPDIR:-/tmp}/siltstone-compat-work.XXXXXX")}
mkdir -p "$work"
trap 'stop_broker >/dev/null 2>&1; [ -n "${COMPAT_WORK:-}" ] || rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

run_suite() {
  local suite=$1 directory=$1 results
  case $suite in
    fast | smoke) directory=smoke ;;
    librdkafka-*) directory=librdkafka ;;
    kafka-clients-*) directory=kafka-clients ;;
  esac
  [ -e "$compat/$directory/suite.sh" ] || die "unknown suite $suite"
  results=$work/$suite.results
  : >"$results"
  # Each suite defines suite_build (into the cache, before the broker starts) and suite_run RESULTS.
  suite_allow=$compat/$directory/allow.txt
  . "$compat/$directory/suite.sh"
  suite_build "$suite"
  # A suite with fixed ports gets a network namespace of its own, entered once all is built.
  if [ -n "${suite_netns:-}" ] && [ -z "${COMPAT_IN_NETNS:-}" ] && unshare --net --map-root-user true 2>/dev/null; then
    [ "${COMPAT_BROKER:-siltstone}" != siltstone ] || siltstone_binary
    export SILTSTONE_BIN COMPAT_WORK=$work COMPAT_IN_NETNS=1
    exec unshare --net --map-root-user bash -c 'ip link set lo up && exec "$@"' netns "$compat/run.sh" "$suite"
  fi
  start_broker "${suite_port:-0}" "${suite_settings[@]}"
  suite_run "$results"
  stop_broker || echo "broker-stops-cleanly,FAIL" >>"$results"
  sort -u "$results"
  close_suite "$suite" "$results"
}

[ $# -gt 0 ] || set -- fast
[ "$*" != all ] || set -- smoke java-tools kafka-clients librdkafka librdkafka-full librdkafka-idempotent kafka-python rust-rdkafka rskafka franz-go sarama kafka-go
status=0
for suite in "$@"; do
  (run_suite "$suite") || status=1
done
exit $status
