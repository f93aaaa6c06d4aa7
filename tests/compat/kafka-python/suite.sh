# kafka-python's integration tests, from its sdist.

kafka_python_version=$(sed -n 's/^kafka-python==//p' "$compat/smoke/requirements.txt")
# As which Kafka the suite should see the broker; test_kafka_version_infer pins it.
kafka_python_broker=4.3.0
suite_port=0
# test_create_partitions assigns to broker 0; test_group wants session timeouts of 3 s.
suite_settings=(authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer allow.everyone.if.no.acl.found=true
  node.id=0 num.partitions=4 auto.create.topics.enable=true group.min.session.timeout.ms=1000 group.initial.rebalance.delay.ms=0)

kafka_python_build() {
  cd "$1"
  python3 -m venv venv
  venv/bin/pip download -q --no-deps --no-binary :all: "kafka-python==$kafka_python_version"
  mkdir source
  tar xzf ./kafka_python-*.tar.gz --strip-components=1 -C source
  venv/bin/pip install -q './source[crc32c,lz4,snappy,zstd,testing]' pytest-timeout==2.4.0
  mkdir -p source/servers/$kafka_python_broker/kafka-bin
  touch source/test/__init__.py
  # The sdist leaves this module out; only its names are used when the broker is external.
  cp "$compat/kafka-python/service.py" source/test/service.py
}

suite_build() {
  need python3-venv python3
  kafka_python_dir=$(cached kafka-python kafka_python_build "$compat/smoke/requirements.txt" "$compat/kafka-python/service.py" "$compat/kafka-python/suite.sh") || exit 2
}

suite_run() {
  cd "$kafka_python_dir/source" || return
  local log=$work/kafka-python.log
  KAFKA_VERSION=$kafka_python_broker KAFKA_URI=kafka://$bootstrap PYTHONPATH=. PYTHONDONTWRITEBYTECODE=1 timeout -k 5 "${COMPAT_LIMIT:-900}" \
    "$kafka_python_dir/venv/bin/pytest" ${COMPAT_ONLY:-test/integration} --ignore test/integration/test_ssl_integration.py \
    -v --timeout 60 --timeout-method=signal --tb=short -p no:logging -p no:cacheprovider >"$log" 2>&1 </dev/null
  # A test that timed out in its set-up is an ERROR; skipped ones (SASL on an external broker) are no result.
  sed -n 's/^test\/integration\/\(.*\) PASSED .*/\1,PASS/p; s/^test\/integration\/\(.*\) \(FAILED\|ERROR\) .*/\1,FAIL/p' "$log" | sort -u >>"$1"
  grep -q '^=\+ .* in [0-9.]*s' "$log" || echo "finishes,FAIL" >>"$1"
}
