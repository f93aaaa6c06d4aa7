# rskafka's integration tests, from the crates registry.

. "$compat/rust-suites.sh"
suite_port=0
# test_non_existing_partition fails wherever topics are created by themselves, on Kafka too.
suite_settings=(num.partitions=4 auto.create.topics.enable=false group.initial.rebalance.delay.ms=0)
# Tests that return at once without TEST_JAVA_INTEROPT or KAFKA_SASL_CONNECT, and helpers' own tests.
skip_tests='.*[jJ]ava.*|.*::test_sasl|(java_helper|rdkafka_helper|test_helpers)::.*'

rskafka_build() { rust_suite_build rskafka 0.6.0 "$1"; }

suite_build() {
  install_packages g++ make pkg-config zlib1g-dev
  rskafka_dir=$(cached rskafka rskafka_build "$compat/rust-suites.sh" "$compat/rskafka/suite.sh") || exit 2
}

suite_run() {
  TEST_INTEGRATION=1 KAFKA_CONNECT=$bootstrap TEST_BROKER_IMPL=kafka rust_suite_run "$rskafka_dir" "$jobs" "$1"
}
