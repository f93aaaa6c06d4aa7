#!/usr/bin/env bash
# kafka.sh: Apache Kafka from its Maven jars, as one KRaft node on loopback. The reference for tests and benchmarks.
#
#   kafka.sh home                                     fetch the jars if missing; print the directory (libs/*.jar, bin/kafka-*.sh)
#   kafka.sh start --port P --data DIR [--set k=v]…   start, wait until it serves, print "PID PORT" (P may be 0)
#                  [--keep] [--heap SIZE]             --keep: use the data DIR holds already instead of emptying it
#   kafka.sh stop  --data DIR [--kill]                stop the broker started on DIR (SIGTERM, after 20 s or with --kill: SIGKILL)
#   kafka.sh tool  CLASS [ARG]…                       run a command-line tool, e.g. org.apache.kafka.tools.TopicCommand
#
# After a SIGKILL the controller refuses the same node until its session ends (60 s; --set broker.session.timeout.ms=9000 shortens that).
# Jars are cached in ${SILTSTONE_CACHE:-$HOME/.cache/siltstone}/kafka-VERSION. The broker's output is DIR.log, its properties DIR/server.properties.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${SILTSTONE_CACHE:-$HOME/.cache/siltstone}
version=$(sed -n 's:.*<kafka.version>\(.*\)</kafka.version>.*:\1:p' "$here/kafka/pom.xml")
home=$cache/kafka-$version

die() { echo "kafka.sh: $*" >&2; exit 1; }

# Two-line shims named like the distribution's scripts: suites call $KAFKA_PATH/bin/kafka-topics.sh and the like.
write_shims() {
  local dir=$1 name class
  mkdir -p "$dir/bin"
  cat >"$dir/bin/kafka-run-class.sh" <<'SHIM'
#!/usr/bin/env bash
libs=$(cd "$(dirname "${BASH_SOURCE[0]}")/../libs" && pwd)
exec java ${KAFKA_HEAP_OPTS:--Xmx256m} -XX:TieredStopAtLevel=1 ${KAFKA_OPTS:-} -cp "${CLASSPATH:+$CLASSPATH:}$libs/*" "$@"
SHIM
  while read -r name class; do
    printf '#!/usr/bin/env bash\nexec "$(dirname "${BASH_SOURCE[0]}")/kafka-run-class.sh" %s "$@"\n' "$class" >"$dir/bin/$name.sh"
  done <<'TABLE'
kafka-topics org.apache.kafka.tools.TopicCommand
kafka-acls org.apache.kafka.tools.AclCommand
kafka-configs kafka.admin.ConfigCommand
kafka-consumer-groups org.apache.kafka.tools.consumer.group.ConsumerGroupCommand
kafka-console-producer org.apache.kafka.tools.ConsoleProducer
kafka-console-consumer org.apache.kafka.tools.consumer.ConsoleConsumer
kafka-producer-perf-test org.apache.kafka.tools.ProducerPerformance
kafka-consumer-perf-test org.apache.kafka.tools.ConsumerPerformance
kafka-broker-api-versions org.apache.kafka.tools.BrokerApiVersionsCommand
kafka-delete-records org.apache.kafka.tools.DeleteRecordsCommand
kafka-get-offsets org.apache.kafka.tools.GetOffsetShell
kafka-log-dirs org.apache.kafka.tools.LogDirsCommand
kafka-storage kafka.tools.StorageTool
kafka-dump-log org.apache.kafka.tools.DumpLogSegments
TABLE
  chmod +x "$dir"/bin/*.sh
}

ensure_home() {
  [ -e "$home/complete" ] && return
  command -v java >/dev/null || die "java is missing: install openjdk-17-jre-headless or newer"
  command -v mvn >/dev/null || die "mvn is missing: install maven"
  mkdir -p "$cache"
  (
    flock 9
    [ -e "$home/complete" ] && exit 0
    echo "kafka.sh: fetching Apache Kafka $version to $home" >&2
    mkdir -p "$home/libs"
    mvn -q -B -f "$here/kafka/pom.xml" dependency:copy-dependencies -DoutputDirectory="$home/libs" >&2
    write_shims "$home"
    touch "$home/complete"
  ) 9>"$cache/kafka-$version.lock"
}

free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

write_properties() {
  local port=$1 data=$2 controller_port=$3; shift 3
  cat <<PROPERTIES
process.roles=broker,controller
node.id=0
controller.quorum.bootstrap.servers=127.0.0.1:$controller_port
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller_port
advertised.listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller_port
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=$data/log
offsets.topic.replication.factor=1
offsets.topic.num.partitions=5
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=5
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=5
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=60000
initial.broker.registration.timeout.ms=90000
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
allow.everyone.if.no.acl.found=true
PROPERTIES
  # Later lines win in a properties file.
  [ $# -eq 0 ] || printf '%s\n' "$@"
}

start() {
  local port=0 data='' keep='' heap=1g controller_port pid deadline sets=()
  while [ $# -gt 0 ]; do
    case $1 in
      --port) port=$2; shift 2 ;;
      --data) data=$2; shift 2 ;;
      --set) sets+=("$2"); shift 2 ;;
      --heap) heap=$2; shift 2 ;;
      --keep) keep=1; shift ;;
      *) die "start: unknown argument $1" ;;
    esac
  done
  [ -n "$data" ] || die "start: --data DIR is missing"
  ensure_home
  mkdir -p "$data"
  data=$(cd "$data" && pwd)
  [ ! -e "$data/pid" ] || ! kill -0 "$(cat "$data/pid")" 2>/dev/null || die "start: a broker runs on $data already"
  [ "$port" != 0 ] || port=$(free_port)
  [ -n "$keep" ] || rm -rf "$data/log" "$data/server.properties"
  # The quorum's voters are stored with the log, so a restart must listen on the same controller port.
  controller_port=$(sed -n 's/^controller.quorum.bootstrap.servers=.*://p' "$data/server.properties" 2>/dev/null || true)
  [ -n "$controller_port" ] || controller_port=$(free_port)
  write_properties "$port" "$data" "$controller_port" ${sets[@]+"${sets[@]}"} >"$data/server.properties"
  if [ ! -e "$data/log/meta.properties" ]; then
    tool kafka.tools.StorageTool format --standalone -t 'c2lsdHN0b25lLWthZmthAA' -c "$data/server.properties" >"$data.log" 2>&1 ||
      die "start: format failed, see $data.log"
  fi
  # A server that inherits our stdout would keep a caller's $(…) waiting for ever.
  setsid java "-Xms$heap" "-Xmx$heap" -server -XX:+UseG1GC -XX:MaxGCPauseMillis=20 -XX:InitiatingHeapOccupancyPercent=35 \
    "-Dlog4j2.configurationFile=$here/kafka/log4j2.yaml" -cp "$home/libs/*" kafka.Kafka "$data/server.properties" \
    >"$data.log" 2>&1 </dev/null &
  pid=$!
  echo "$pid" >"$data/pid"
  deadline=$((SECONDS + 150))
  until grep -q 'Kafka Server started' "$data.log"; do
    kill -0 "$pid" 2>/dev/null || die "start: the broker ended, see $data.log"
    [ $SECONDS -lt $deadline ] || { kill -9 "$pid"; die "start: not ready after 150 s, see $data.log"; }
    sleep 0.1
  done
  echo "$pid $port"
}

stop() {
  local data='' signal=TERM pid deadline
  while [ $# -gt 0 ]; do
    case $1 in
      --data) data=$2; shift 2 ;;
      --kill) signal=KILL; shift ;;
      *) die "stop: unknown argument $1" ;;
    esac
  done
  [ -n "$data" ] || die "stop: --data DIR is missing"
  [ -e "$data/pid" ] || return 0
  pid=$(cat "$data/pid")
  kill -"$signal" "$pid" 2>/dev/null || true
  deadline=$((SECONDS + 20))
  while kill -0 "$pid" 2>/dev/null; do
    [ $SECONDS -lt $deadline ] || kill -9 "$pid" 2>/dev/null || true
    sleep 0.1
  done
  rm -f "$data/pid"
}

tool() {
  ensure_home
  "$home/bin/kafka-run-class.sh" "$@"
}

command=${1:-}
[ $# -eq 0 ] || shift
case $command in
  home) ensure_home; echo "$home" ;;
  start) start "$@" ;;
  stop) stop "$@" ;;
  tool) tool "$@" ;;
  *) sed -n '2,12p' "${BASH_SOURCE[0]}" | sed 's/^# \{0,1\}//' >&2; exit 2 ;;
esac
