# Apache Kafka's command-line tools: what each prints here is what it prints against Kafka (golden.txt, recorded once).
#
# COMPAT_RECORD=1 COMPAT_BROKER=kafka run.sh java-tools writes golden.txt anew. COMPAT_ONLY: prefixes of case names.

suite_settings=(group.initial.rebalance.delay.ms=0 offsets.topic.num.partitions=5 node.id=0
  authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer allow.everyone.if.no.acl.found=true)
suite_port=0
tools=$compat/java-tools

tools_build() { javac -d "$1" -cp "$kafka_libs/*" "$tools/ToolRunner.java" && cp "$tools/log4j2.yaml" "$1"; }

suite_build() {
  need openjdk-17-jdk-headless java javac
  need maven mvn
  kafka_libs=$("$compat/kafka.sh" home)/libs || exit 2
  tools_dir=$(cached java-tools tools_build "$tools/ToolRunner.java" "$tools/log4j2.yaml" "$compat/kafka/pom.xml") || exit 2
}

suite_run() {
  mkdir -p "$work/tools"
  # The tools run one after the other in this JVM: starting one for each would take a core for minutes.
  java -Xmx256m -XX:TieredStopAtLevel=1 -XX:+UseSerialGC --add-opens java.base/java.lang=ALL-UNNAMED -Dlog4j2.configurationFile="$tools_dir/log4j2.yaml" \
    -cp "$tools_dir:$kafka_libs/*" ToolRunner "$bootstrap" "$tools/cases.txt" "$work/tools.out" "$work/tools" ${COMPAT_ONLY:-} >&2
  if [ -n "${COMPAT_RECORD:-}" ]; then
    python3 "$tools/check.py" --record "$work/tools.out" "$tools/golden.txt"
  fi
  python3 "$tools/check.py" "$work/tools.out" "$tools/golden.txt" "$tools/excuses.toml" >>"$1"
}
