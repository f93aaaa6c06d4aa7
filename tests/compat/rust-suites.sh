# What the two Rust client suites share: build a published crate's tests, then run each test in a process of its own, so that one
# that hangs costs its own time limit and nothing else. Sourced by their suite.sh.

# The crate's sources come from cargo's registry cache, by way of a scratch crate that depends on it.
rust_suite_build() { # CRATE VERSION DIR
  local crate=$1 version=$2 dir=$3
  mkdir -p "$dir/fetch/src"
  touch "$dir/fetch/src/lib.rs"
  printf '[package]\nname = "fetch"\nversion = "0.0.0"\nedition = "2021"\n[workspace]\n[dependencies]\n%s = "=%s"\n' "$crate" "$version" >"$dir/fetch/Cargo.toml"
  cp -r "$(cargo metadata --format-version 1 --manifest-path "$dir/fetch/Cargo.toml" | python3 -c "
import json, os, sys
print(next(os.path.dirname(p['manifest_path']) for p in json.load(sys.stdin)['packages'] if p['name'] == '$crate' and p['version'] == '$version'))")" "$dir/source"
  chmod -R u+w "$dir/source"
  rm -rf "$dir/fetch" "$dir/source/rust-toolchain.toml"
  printf '\n[workspace]\n' >>"$dir/source/Cargo.toml"
  cd "$dir/source"
  [ "$crate" != rskafka ] || cargo update -q -p rsasl # the locked one does not compile on current Rust
  # No debug information: a third of the size, and nobody steps through these.
  CARGO_PROFILE_DEV_DEBUG=0 CARGO_PROFILE_TEST_DEBUG=0 CARGO_TARGET_DIR=$dir/target nice cargo test --tests --no-run --message-format=json >"$dir/build.json"
  # Keep only the test binaries; one line for each: NAME PATH.
  python3 - "$dir" >"$dir/binaries" <<'PYTHON'
import json, os, shutil, sys

directory = sys.argv[1]
os.mkdir(f"{directory}/bin")
for line in open(f"{directory}/build.json"):
    message = json.loads(line)
    if message.get("executable") and message["target"]["kind"] == ["test"]:
        name = message["target"]["name"]
        shutil.copy(message["executable"], f"{directory}/bin/{name}")
        print(name, f"{directory}/bin/{name}")
PYTHON
  rm -rf "$dir/build.json" "$dir/target"
}

rust_suite_one() { # BINARY PATH TEST
  local name=$1::$3 log
  log=$work/${name//:/_}.log
  if timeout -k 5 "${COMPAT_LIMIT:-90}" "$2" --exact "$3" --test-threads=1 >"$log" 2>&1 </dev/null; then
    echo "$name,PASS"
  else
    echo "$name,FAIL"
  fi
}

# rust_suite_run DIR JOBS RESULTS: SKIP_TESTS is a pattern of BINARY::TEST names that do not touch the broker.
rust_suite_run() {
  local dir=$1 parallel=$2 results=$3 name path
  cd "$dir/source" || return
  export work
  export -f rust_suite_one
  while read -r name path; do
    "$path" --list 2>/dev/null | sed -n "s|^\(.*\): test\$|$name $path \1|p"
  done <"$dir/binaries" >"$work/tests"
  awk '{ print $1 "::" $3 " " $0 }' "$work/tests" | grep -vE "^(${skip_tests:-none}) " | cut -d' ' -f2- |
    { if [ -n "${COMPAT_ONLY:-}" ]; then grep -E "$COMPAT_ONLY"; else cat; fi; } |
    xargs -P "$parallel" -L1 bash -c 'rust_suite_one "$@"' one >>"$results"
}
