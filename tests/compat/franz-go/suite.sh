# franz-go's own integration tests (package kgo), from the Go module proxy.

. "$compat/go-suites.sh"
franz_go_version=v1.21.3
suite_port=0
suite_settings=(num.partitions=4 auto.create.topics.enable=true group.initial.rebalance.delay.ms=0)
# The tests that talk to a broker; the package's other hundred would pass without one. kadm's (v1.18.0) are all of that kind.
franz_go_tests='Test848RegexBrokerResolves TestAddRemovePartitions TestClient_Produce TestClient_ProduceLargeMessages TestConsumeRegex
TestConsumeRegexShareSkipsInternal TestConsumeTopicRetrieval TestConsumeTopicRetrieval_Many TestDirectPartitionPurge TestGroupETL TestGroupSimple
TestHookPollStart TestIssue1034 TestIssue325 TestIssue337 TestIssue434 TestIssue523 TestIssue648 TestIssue769 TestIssue810 TestIssue831 TestIssue865
TestIssueFetchLargerThanBrokerMaxReadBytes TestIssueProduceSyncManualPartitionNegativeDoesNotPanic TestPauseIssue489 TestPauseIssueOct2023 TestPing
TestPooling TestShareGroup TestShareGroupAckOnClose TestShareGroupETL TestShareGroupOffsetsAdmin TestTxnEtl TestUnknownGroupOffsetFetchPinned'

franz_go_build() {
  cd "$1"
  go mod init suite
  go get "github.com/twmb/franz-go@$franz_go_version"
  go get -t github.com/twmb/franz-go/pkg/kgo
  nice go test -c -o kgo.test github.com/twmb/franz-go/pkg/kgo
}

suite_build() {
  need golang-go go
  franz_go_dir=$(cached franz-go franz_go_build "$compat/franz-go/suite.sh") || exit 2
}

# COMPAT_ONLY: a pattern of Go's -test.run. A test that its own check of ApiVersions skips is no result.
suite_run() {
  local log=$work/franz-go.log pattern=${COMPAT_ONLY:-^($(echo $franz_go_tests | tr ' ' '|'))\$}
  KGO_SEEDS=$bootstrap KGO_TEST_RF=1 KGO_TEST_RECORDS=${KGO_TEST_RECORDS:-10000} KGO_LOG_LEVEL=${KGO_LOG_LEVEL:-none} timeout -k 5 "${COMPAT_LIMIT:-600}" \
    "$franz_go_dir/kgo.test" -test.v -test.count=1 -test.timeout 590s -test.run "$pattern" >"$log" 2>&1 </dev/null
  go_suite_results "$log" >>"$1"
}
