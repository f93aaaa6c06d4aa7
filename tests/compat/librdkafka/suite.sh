# librdkafka's own tests, from the npm tarball of confluent's JavaScript client, which carries them.

librdkafka_package=$(cat "$compat/librdkafka/package.txt")
suite_port=0
# Three default replicas are more than one broker has; four partitions is what the suite expects of auto-created topics.
# Tests deny User:* on a topic: the client, User:ANONYMOUS, must be no super user.
suite_settings=(authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer allow.everyone.if.no.acl.found=true
  num.partitions=4 auto.create.topics.enable=true delete.topic.enable=true)

# Quick mode leaves the longest sub-tests out; each mode has a list of its own.
librdkafka_flags=(-Q) librdkafka_limit=300
case $suite in
  librdkafka-full) librdkafka_flags=() librdkafka_limit=1200 suite_allow=$compat/librdkafka/allow-full.txt ;;
  librdkafka-idempotent) librdkafka_flags=(-Q -P) suite_allow=$compat/librdkafka/allow-idempotent.txt ;;
esac

librdkafka_build() {
  cd "$1"
  npm pack "$librdkafka_package"
  tar xzf ./*.tgz --strip-components=3 package/deps/librdkafka
  rm ./*.tgz
  # rapidjson and curl must be there before configure runs, or tests skip without a word.
  nice ./configure
  nice make -j2 libs
  nice make -j2 -C tests build
}

suite_build() {
  need npm npm
  need openjdk-17-jdk-headless java
  need maven mvn
  install_packages g++ make pkg-config libssl-dev libsasl2-dev libcurl4-openssl-dev libzstd-dev zlib1g-dev rapidjson-dev
  librdkafka_dir=$(cached librdkafka librdkafka_build "$compat/librdkafka/package.txt") || exit 2
  kafka_home=$("$compat/kafka.sh" home) || exit 2
}

# The numbers to run. Those of local tests (their own mock cluster) and manual ones are left out by the runner's -L.
librdkafka_numbers() {
  if [ -n "${COMPAT_ONLY:-}" ]; then
    printf '%s\n' $COMPAT_ONLY
  elif [ -n "${COMPAT_ALL:-}" ]; then
    # 0139 and 0150 run on librdkafka's mock cluster; 017x to 019x want share groups, which the version below leaves out.
    sed -n 's/^ *_TEST(\(0[01][0-9][0-9]\)_[a-z0-9_]*,.*/\1/p' "$librdkafka_dir/tests/test.c" | sort -u | grep -vE '^(0139|0150|01[789].)$'
  else
    grep -v '^#' "$suite_allow" | cut -c1-4 | sort -u
  fi
}

# One process per number: a time-out inside a test ends the whole process. The summary table names each test it ran.
librdkafka_one() {
  local number=$1 log=$work/librdkafka-$1.log
  TESTS=$number timeout -k 5 "$limit" ./test-runner -p1 -L $flags -E >"$log" 2>&1 </dev/null
  # A pass in 0.000 s did nothing (every sub-test is left out in quick mode): no result.
  sed -n 's/\x1b\[[0-9;]*m//g; s/^| *\([0-9][0-9a-z_]*\) *| *\(PASSED\|FAILED\) *| *\([0-9.]*\)s.*/\1 \2 \3/p' "$log" |
    awk '$3 != "0.000" || $2 == "FAILED" { print $1 "," ($2 == "PASSED" ? "PASS" : "FAIL") }' >"$log.results"
  if ! sed 's/\x1b\[[0-9;]*m//g' "$log" | grep -q 'SUMMARY'; then
    # The process died or ran out of time, so no table was printed: whatever was running failed.
    sed -n 's/\x1b\[[0-9;]*m//g; s/.*=== Running test \([0-9][0-9a-z_]*\) =.*/\1,FAIL/p' "$log" | tail -1 >"$log.results"
    [ -s "$log.results" ] || echo "$number,FAIL" >"$log.results"
  fi
  cat "$log.results"
}

suite_run() {
  cd "$librdkafka_dir/tests" || return
  printf '%s\n' "metadata.broker.list=$bootstrap" test.topic.random=true test.timeout.multiplier=2 >"$work/librdkafka.conf"
  export RDKAFKA_TEST_CONF=$work/librdkafka.conf LD_LIBRARY_PATH=$librdkafka_dir/src:$librdkafka_dir/src-cpp TEST_KAFKA_VERSION=4.1.0
  export KAFKA_PATH=$kafka_home BROKERS=$bootstrap work flags="${librdkafka_flags[*]}" limit="${COMPAT_LIMIT:-$librdkafka_limit}"
  export -f librdkafka_one
  librdkafka_numbers | xargs -P "$jobs" -I{} bash -c 'librdkafka_one {}' >>"$1"
  rm -f stats_*.json test_report_*.json
}
