# sarama's own functional tests, from the Go module proxy, with its toxiproxy between them and the broker.

. "$compat/go-suites.sh"
sarama_version=v1.61.1 toxiproxy_version=v2.5.0
# The tests name five proxies by fixed ports; all of them lead to the one broker, which advertises the first.
suite_port=9092
suite_netns=1
export SILTSTONE_ADVERTISE=127.0.0.1:29091
suite_settings=(node.id=1 auto.create.topics.enable=false group.initial.rebalance.delay.ms=0)
[ "${COMPAT_BROKER:-}" != kafka ] || suite_settings+=(advertised.listeners=PLAINTEXT://$SILTSTONE_ADVERTISE)

# One broker keeps one replica.
go_suite_edit() { sed -i 's/ReplicationFactor: *3,/ReplicationFactor: 1,/' "$1"/functional*_test.go; }

sarama_build() {
  go_suite_build "$1" github.com/IBM/sarama "$sarama_version" . sarama.test -tags functional
  cat source/functional*_test.go | sed -n 's/^func \(Test[A-Za-z0-9_]*\)(t .*/\1/p' >names
  mkdir toxiproxy && cd toxiproxy && go mod init suite && go get "github.com/Shopify/toxiproxy/v2@$toxiproxy_version"
  go get github.com/Shopify/toxiproxy/v2/cmd/server
  nice go build -o ../toxiproxy-server github.com/Shopify/toxiproxy/v2/cmd/server
}

suite_build() {
  need golang-go go
  sarama_dir=$(cached sarama sarama_build "$compat/sarama/suite.sh" "$compat/go-suites.sh") || exit 2
}

# COMPAT_ONLY: a pattern of Go's -test.run.
suite_run() {
  local log=$work/sarama.log proxies=$work/proxies.json proxy n
  for n in 1 2 3 4 5; do
    printf '{"name": "kafka%s", "listen": "127.0.0.1:2909%s", "upstream": "127.0.0.1:9092"}\n' $n $n
  done | python3 -c 'import json, sys; print(json.dumps([json.loads(line) for line in sys.stdin]))' >"$proxies"
  "$sarama_dir/toxiproxy-server" -host 127.0.0.1 -config "$proxies" >"$work/toxiproxy.log" 2>&1 &
  proxy=$!
  for _ in $(seq 100); do
    (exec 3<>/dev/tcp/127.0.0.1/29095) 2>/dev/null && break
    sleep 0.05
  done
  # The sources' directory holds what some tests read.
  (cd "$sarama_dir/source" && TOXIPROXY_ADDR=http://127.0.0.1:8474 KAFKA_VERSION=4.1.0 timeout -k 5 "${COMPAT_LIMIT:-600}" \
    "$sarama_dir/sarama.test" -test.v -test.timeout 590s -test.run "${COMPAT_ONLY:-^($(paste -sd'|' "$sarama_dir/names"))\$}" >"$log" 2>&1 </dev/null)
  kill "$proxy"
  wait "$proxy" 2>/dev/null
  go_suite_results "$log" >>"$1"
}
