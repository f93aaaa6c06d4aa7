# rust-rdkafka's integration tests, from the crates registry.

. "$compat/rust-suites.sh"
# The tests name localhost:9092, broker 0 and three partitions: so the suite runs in a network namespace of its own, where 9092 is free.
suite_port=9092
suite_netns=1
suite_settings=(node.id=0 num.partitions=3 auto.create.topics.enable=true group.min.session.timeout.ms=1000 group.initial.rebalance.delay.ms=0)
# A test of the helpers, repeated in each binary; the partition list never talks to a broker.
skip_tests='.*::utils::.*|.*::test_populate_topic|test_topic_partition_list::.*'

rdkafka_build() { rust_suite_build rdkafka 0.39.0 "$1"; }

suite_build() {
  install_packages g++ make pkg-config zlib1g-dev
  rdkafka_dir=$(cached rust-rdkafka rdkafka_build "$compat/rust-suites.sh" "$compat/rust-rdkafka/suite.sh") || exit 2
}

suite_run() { KAFKA_HOST=127.0.0.1:9092 KAFKA_VERSION=4.1.0 rust_suite_run "$rdkafka_dir" 1 "$1"; }
