# The smoke scripts. Each prints its own results: CLIENT/CHECK,PASS|FAIL and `CLIENT: N passed, N failed`.

suite_settings=(group.initial.rebalance.delay.ms=0)
suite_port=0
smoke=$compat/smoke

smoke_python_build() { python3 -m venv "$1/venv" && "$1/venv/bin/pip" install -q -r "$smoke/requirements.txt"; }
smoke_node_build() { cp "$smoke/package.json" "$smoke"/*.mjs "$1" && (cd "$1" && npm install --no-audit --no-fund --no-package-lock); }
smoke_go_build() { (cd "$smoke/go" && go build -o "$1/" "./$go_client"); }
smoke_java_build() { javac -d "$1" -cp "$kafka_libs/*" "$smoke/java/SmokeJava.java"; }

suite_build() {
  clients='kcat confluent-kafka kafka-python aiokafka kafkajs platformatic kafka-go java'
  [ "$1" = fast ] || clients="$clients franz-go sarama"
  clients=${COMPAT_ONLY:-$clients}
  local client
  for client in $clients; do
    case $client in
      kcat) need kcat kcat ;;
      confluent-kafka | kafka-python | aiokafka)
        need python3-venv python3
        python_dir=$(cached smoke-python smoke_python_build "$smoke/requirements.txt") || exit 2
        ;;
      kafkajs | platformatic)
        need npm node npm
        node_dir=$(cached smoke-node smoke_node_build "$smoke/package.json" "$smoke"/*.mjs) || exit 2
        ;;
      franz-go | sarama | kafka-go)
        command -v go >/dev/null || die "go is missing: https://go.dev/dl, version $(sed -n 's/^go //p' "$smoke/go/go.mod") or newer"
        go_client=$client
        cached "smoke-$client" smoke_go_build "$smoke/go/go.sum" "$smoke/go/$client/main.go" "$smoke/go/checks/checks.go" >/dev/null || exit 2
        ;;
      java)
        need openjdk-17-jdk-headless java javac
        need maven mvn
        kafka_libs=$("$compat/kafka.sh" home)/libs || exit 2
        java_dir=$(cached smoke-java smoke_java_build "$smoke/java/SmokeJava.java" "$compat/kafka/pom.xml") || exit 2
        ;;
      *) die "unknown smoke client $client" ;;
    esac
  done
}

smoke_command() {
  case $1 in
    kcat) command=("$smoke/smoke_kcat.sh") ;;
    confluent-kafka | kafka-python | aiokafka) command=("$python_dir/venv/bin/python" -B "$smoke/smoke_${1//-/_}.py") ;;
    kafkajs | platformatic) command=(node "$node_dir/smoke_$1.mjs") ;;
    franz-go | sarama | kafka-go)
      go_client=$1
      command=("$(cached "smoke-$1" smoke_go_build "$smoke/go/go.sum" "$smoke/go/$1/main.go" "$smoke/go/checks/checks.go")/$1")
      ;;
    java) command=(java -XX:TieredStopAtLevel=1 -cp "$java_dir:$kafka_libs/*" SmokeJava) ;;
  esac
}

suite_run() {
  local results=$1 client command
  for client in $clients; do
    smoke_command "$client"
    timeout -k 5 "${COMPAT_LIMIT:-120}" "${command[@]}" "$bootstrap" >"$work/$client.out" 2>"$work/$client.err"
    grep -E ',(PASS|FAIL)$' "$work/$client.out" >>"$results"
    if ! tail -1 "$work/$client.out" | grep -E "^$client: [0-9]+ passed, [0-9]+ failed$"; then
      echo "$client: did not finish"
      echo "$client/finishes,FAIL" >>"$results"
    fi
    grep ",FAIL" -q "$work/$client.out" && head -40 "$work/$client.err" >&2
  done
  return 0
}
