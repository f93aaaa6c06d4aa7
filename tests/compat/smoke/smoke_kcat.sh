#!/usr/bin/env bash
# Smoke test of the distribution's kcat, with its old librdkafka (Debian 12: 2.0.2). Usage: smoke_kcat.sh BOOTSTRAP
set -uo pipefail
bootstrap=$1
topic=smoke-kcat-$$-$RANDOM
group=$topic-group
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0

check() { # NAME FUNCTION…
  local name=$1
  shift
  # Outside the condition, where bash would ignore -e.
  (set -e; "$@") 2>"$work/error"
  if [ $? = 0 ]; then
    passed=$((passed + 1)) && echo "kcat/$name,PASS"
  else
    failed=$((failed + 1)) && echo "kcat/$name,FAIL"
    sed "s:^:kcat/$name\: :" "$work/error" >&2
  fi
}

same() { # WANTED GOT: compare two texts.
  [ "$1" = "$2" ] || { printf 'wanted:\n%s\ngot:\n%s\n' "$1" "$2" | head -40 >&2; return 1; }
}

kcat_() { timeout -k2 30 kcat -b "$bootstrap" -X topic.metadata.refresh.interval.ms=500 "$@"; }

metadata() { kcat_ -L | grep -q '1 brokers:'; }

# The first produce makes the topic, with the broker's default number of partitions.
auto_create() { echo first | kcat_ -P -t "$topic" -p 0; kcat_ -L -t "$topic" | grep -q "topic \"$topic\" with [1-9]"; }

produce_codec() {
  local codec=$1 before
  before=$(kcat_ -Q -t "$topic:0:-1" | sed 's/.*offset //')
  seq 1 500 | sed 's/$/ silt and stone silt and stone silt and stone/' >"$work/sent"
  kcat_ -P -t "$topic" -p 0 -z "$codec" <"$work/sent"
  kcat_ -C -q -e -t "$topic" -p 0 -o "$before" >"$work/read"
  cmp "$work/sent" "$work/read" >&2
}

keys_and_headers() {
  local before
  before=$(kcat_ -Q -t "$topic:0:-1" | sed 's/.*offset //')
  printf 'key:value\n' | kcat_ -P -t "$topic" -p 0 -K: -H a=1 -H b= -H a=2
  printf ':no key\n' | kcat_ -P -t "$topic" -p 0 -K: -Z
  printf 'gone:\n' | kcat_ -P -t "$topic" -p 0 -K: -Z
  same $'3|key|5|value|a=1,b=,a=2|\n-1||6|no key||\n4|gone|-1|||' \
    "$(kcat_ -C -q -e -Z -t "$topic" -p 0 -o "$before" -f '%K|%k|%S|%s|%h|\n' | sed 's/|NULL|/||/g')"
}

idempotent() { seq 1 2000 | kcat_ -P -t "$topic" -p 0 -X enable.idempotence=true -X batch.num.messages=100; }

group_consume() {
  local end
  end=$(kcat_ -Q -t "$topic:0:-1" | sed 's/.*offset //')
  same "$end" "$(kcat_ -G "$group" -q -e -X auto.offset.reset=earliest "$topic" | wc -l)"
}

group_rejoin() {
  printf 'after the commit\n' | kcat_ -P -t "$topic" -p 0
  same 'after the commit' "$(kcat_ -G "$group" -q -e -X auto.offset.reset=earliest "$topic")"
}

seek_offset() { same $'7 7\n8 8' "$(kcat_ -C -q -c 2 -t "$topic" -p 0 -o 7 -f '%o %o\n')"; }

seek_end() { same 'after the commit' "$(kcat_ -C -q -e -t "$topic" -p 0 -o -1)"; }

seek_time() {
  local stamp first
  stamp=$(kcat_ -C -q -c 1 -t "$topic" -p 0 -o 1200 -f '%T')
  first=$(kcat_ -C -q -e -t "$topic" -p 0 -f '%T %o\n' | awk -v t="$stamp" '$1 >= t && !found++ { print $2 }')
  same "$first" "$(kcat_ -Q -t "$topic:0:$stamp" | sed 's/.*offset //')"
  same "$first" "$(kcat_ -C -q -c 1 -t "$topic" -p 0 -o "s@$stamp" -f '%o')"
}

check metadata metadata
check auto-create auto_create
for codec in none gzip snappy lz4 zstd; do check "produce-$codec" produce_codec "$codec"; done
check keys-and-headers keys_and_headers
check produce-idempotent idempotent
check group-consume-commit group_consume
check group-rejoin-from-commit group_rejoin
check seek-offset seek_offset
check seek-end seek_end
check seek-time seek_time
echo "kcat: $passed passed, $failed failed"
[ "$failed" = 0 ]
