# The integration tests of Apache Kafka's own Java clients. Each test starts a broker with the settings it wants: RaftClusterInvocationContext.java
# takes the place of Kafka's class, so it is a Siltstone broker. With COMPAT_BROKER=kafka it is Kafka's.
#
# kafka-clients-fast: the classes that CI runs. COMPAT_ONLY: names of classes, after org.apache.kafka.clients.

suite_settings=()
suite_port=0
clients_source=$compat/kafka-clients

clients_build() {
  mvn -q -B -f "$clients_source/pom.xml" dependency:copy-dependencies -DoutputDirectory="$1/libs"
  mkdir "$1/runner" "$1/harness"
  javac -proc:none -d "$1/runner" -cp "$1/libs/*" "$clients_source/SuiteRunner.java"
  javac -proc:none -d "$1/harness" -cp "$1/libs/*" "$clients_source/RaftClusterInvocationContext.java" "$clients_source/SiltstoneProcess.java"
}

suite_build() {
  need openjdk-17-jdk-headless java javac
  need maven mvn
  clients_dir=$(cached kafka-clients clients_build "$clients_source/pom.xml" "$clients_source"/*.java) || exit 2
  clients_classes='consumer.PlaintextConsumerCommitTest TransactionsWithMaxInFlightOneTest'
  if [ "$1" = kafka-clients-fast ]; then
    suite_allow=$clients_source/allow-fast.txt
  else
    clients_classes="$clients_classes consumer.PlaintextConsumerCallbackTest consumer.PlaintextConsumerSubscriptionTest
      consumer.PlaintextConsumerFetchTest consumer.PlaintextConsumerAssignTest consumer.PlaintextConsumerCloseTest
      consumer.ConsumerTopicCreationTest admin.AdminFenceProducersTest admin.DescribeProducersWithBrokerIdTest"
  fi
}

suite_run() {
  local harness=$clients_dir/harness: out=$work/kafka-clients.out
  [ "${COMPAT_BROKER:-siltstone}" = siltstone ] || harness=
  mkdir -p "$work/brokers"
  # shellcheck disable=SC2086  # a list of class names
  SILTSTONE_BIN=${SILTSTONE_BIN:-} timeout -k 5 "${COMPAT_LIMIT:-1500}" java -Xmx512m -XX:TieredStopAtLevel=1 -Dsiltstone.work="$work/brokers" \
    -Dlog4j2.configurationFile="$compat/java-tools/log4j2.yaml" \
    -cp "$harness$clients_dir/runner:$clients_dir/libs/*" SuiteRunner ${COMPAT_ONLY:-$clients_classes} >"$out" 2>"$work/kafka-clients.err"
  grep -E ',(PASS|FAIL)$' "$out" >>"$1"
  grep -qx finished "$out" || echo "finishes,FAIL" >>"$1"
}
