# segmentio/kafka-go's own tests, from the Go module proxy.

. "$compat/go-suites.sh"
kafka_go_version=v0.4.51
# The tests name localhost:9092 and broker 1.
suite_port=9092
suite_netns=1
export SILTSTONE_ADVERTISE=localhost:9092
suite_settings=(node.id=1 auto.create.topics.enable=true message.max.bytes=200000000 group.initial.rebalance.delay.ms=0
  authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer allow.everyone.if.no.acl.found=true)
# These end the whole run, or can't pass: see findings.md.
kafka_go_skip='TestWriter$/SASL|TestReaderReadCompactedMessage|TestConn$/delete_topics|TestReaderConsumerGroup$/(commits_on_close|rebalance$|verify)'

kafka_go_build() { go_suite_build "$1" github.com/segmentio/kafka-go "$kafka_go_version" . kafka-go.test; }

suite_build() {
  need golang-go go
  kafka_go_dir=$(cached kafka-go kafka_go_build "$compat/kafka-go/suite.sh" "$compat/go-suites.sh") || exit 2
}

# COMPAT_ONLY: a pattern of Go's -test.run. Else the allow-list's tests: half of the others need no broker.
suite_run() {
  local log=$work/kafka-go.log pattern
  pattern="^($(sed '/^#/d; s|/.*||' "$suite_allow" | sort -u | paste -sd'|'))\$"
  [ -z "${COMPAT_ALL:-}" ] || pattern=.
  # Their own CI leaves nettest out as well.
  (cd "$kafka_go_dir/source" && KAFKA_VERSION=4.0.0 KAFKA_SKIP_NETTEST=1 timeout -k 5 "${COMPAT_LIMIT:-600}" \
    "$kafka_go_dir/kafka-go.test" -test.v -test.timeout 590s -test.run "${COMPAT_ONLY:-$pattern}" -test.skip "$kafka_go_skip" >"$log" 2>&1 </dev/null)
  go_suite_results "$log" >>"$1"
}
