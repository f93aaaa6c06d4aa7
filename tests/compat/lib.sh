# lib.sh: what the suites share: the cache, the broker under test, and the tally of results. Sourced by run.sh.

compat=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$compat/../.." && pwd)
cache=${SILTSTONE_CACHE:-$HOME/.cache/siltstone}
jobs=${COMPAT_JOBS:-3}

say() { echo "compat: $*" >&2; }
die() { say "$*"; exit 2; }

# need PACKAGE COMMAND…: the commands must exist; root gets the Debian packages of apt-packages.txt installed.
need() {
  local package=$1 command
  shift
  for command in "$@"; do
    command -v "$command" >/dev/null && continue
    install_packages "$package"
    command -v "$command" >/dev/null || die "$command is missing: apt-get install $package"
  done
}

# install_packages PACKAGE…: only names listed in apt-packages.txt, so that file stays complete.
install_packages() {
  local package missing=()
  for package in "$@"; do
    grep -qx -- "$package" "$compat/apt-packages.txt" || die "$package is not in apt-packages.txt"
    dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  [ "$(id -u)" = 0 ] || die "missing packages: apt-get install ${missing[*]}"
  say "installing ${missing[*]}"
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}"; } >&2 || die "apt-get failed"
}

# cached NAME FUNCTION KEYFILE…: print the directory FUNCTION filled, building it only if the key files changed or it is not there.
# FUNCTION gets the directory as its argument, which exists and is empty.
cached() {
  local name=$1 build=$2 dir key
  shift 2
  key=$(cat "$@" | sha256sum | cut -c1-12)
  dir=$cache/compat/$name-$key
  if [ ! -e "$dir/complete" ]; then
    mkdir -p "$cache/compat"
    (
      flock 9
      [ -e "$dir/complete" ] && exit 0
      say "building $name in $dir"
      rm -rf "$dir" && mkdir -p "$dir"
      (set -e; "$build" "$dir") >"$dir.log" 2>&1
      status=$?
      [ $status = 0 ] || { tail -20 "$dir.log" >&2; die "building $name failed, see $dir.log"; }
      touch "$dir/complete"
    ) 9>"$dir.lock" || exit 2
  fi
  echo "$dir"
}

# ---- the broker under test ----

broker_pid='' broker_dir='' broker_log=''

siltstone_binary() {
  if [ -z "${SILTSTONE_BIN:-}" ]; then
    (cd "$root" && cargo build --release -q -p siltstone) || die "building siltstone failed"
    SILTSTONE_BIN=${CARGO_TARGET_DIR:-$root/target}/release/siltstone
  fi
}

# start_broker PORT KEY=VALUE…: start the broker under test (port 0: any) on an empty directory; sets $bootstrap.
# COMPAT_BROKER: siltstone (default), kafka (the reference), or HOST:PORT of a broker that runs already.
start_broker() {
  local port=$1 setting sets=()
  shift
  for setting in "$@"; do sets+=(--set "$setting"); done
  broker_dir=$(mktemp -d "${TMPDIR:-/tmp}/siltstone-compat.XXXXXX")
  broker_log=$work/broker.log
  case ${COMPAT_BROKER:-siltstone} in
    siltstone) start_siltstone "$port" "${sets[@]}" ;;
    kafka)
      bootstrap=127.0.0.1:$("$compat/kafka.sh" start --port "$port" --data "$broker_dir/kafka" "${sets[@]}" | cut -d' ' -f2)
      broker_log=$broker_dir/kafka.log
      ;;
    *:*) bootstrap=$COMPAT_BROKER ;;
    *) die "COMPAT_BROKER is siltstone, kafka or HOST:PORT" ;;
  esac
  export bootstrap
}

start_siltstone() {
  local port=$1 deadline
  shift
  siltstone_binary
  "$SILTSTONE_BIN" serve --listen "127.0.0.1:$port" --admin 127.0.0.1:0 --data-dir "$broker_dir/data" \
    --object-store "file://$broker_dir/bucket" "$@" >"$broker_dir/stdout" 2>"$broker_log" &
  broker_pid=$!
  deadline=$((SECONDS + 30))
  until bootstrap=$(sed -n 's/^listening on //p' "$broker_dir/stdout" | head -1) && [ -n "$bootstrap" ]; do
    if ! kill -0 "$broker_pid" 2>/dev/null || [ $SECONDS -gt $deadline ]; then
      tail -20 "$broker_log" >&2
      die "the broker did not start"
    fi
    sleep 0.05
  done
}

# stop_broker: a broker that ended by itself, or does not stop cleanly, is a failed result of its own.
stop_broker() {
  local status=0 watchdog
  [ -n "$broker_dir" ] || return 0
  if [ -n "$broker_pid" ]; then
    kill -TERM "$broker_pid" 2>/dev/null || say "the broker was gone before its suite ended"
    (sleep 60; kill -KILL "$broker_pid" 2>/dev/null) &
    watchdog=$!
    wait "$broker_pid" || status=$?
    kill "$watchdog" 2>/dev/null
    wait "$watchdog" 2>/dev/null
    [ $status = 0 ] || say "the broker ended with status $status, see $broker_log"
    broker_pid=''
  elif [ "${COMPAT_BROKER:-}" = kafka ]; then
    "$compat/kafka.sh" stop --data "$broker_dir/kafka"
  fi
  rm -rf "$broker_dir"
  broker_dir=''
  return $status
}

# ---- results ----

# close_suite SUITE RESULTS: print the closing line; an allow-listed name that did not pass fails the suite.
# Without an allow-list every result must be a pass.
close_suite() {
  local suite=$1 results=$2 allow=$suite_allow passed failed broken new
  sort -u -o "$results" "$results"
  passed=$(grep -c ',PASS$' "$results")
  failed=$(grep -c ',FAIL$' "$results")
  if [ -e "$allow" ]; then
    broken=$(comm -23 <(grep -v '^#' "$allow" | sort -u) <(sed -n 's/,PASS$//p' "$results" | sort -u))
    new=$(comm -13 <(grep -v '^#' "$allow" | sort -u) <(sed -n 's/,PASS$//p' "$results" | sort -u))
    [ -z "$new" ] || say "$suite: passed and not in ${allow##*/} yet:"$'\n'"$new"
  else
    broken=$(sed -n 's/,FAIL$//p' "$results")
  fi
  [ -z "$broken" ] || say "$suite: allow-listed and not passed:"$'\n'"$broken"
  echo "compat-$suite: $passed passed, $failed failed"
  [ -z "$broken" ] && [ "$passed" -gt 0 ]
}
