# What the suites of Go clients share: a published module's own tests as one binary, and its printed results. Sourced by their suite.sh.

# go_suite_build DIR MODULE VERSION PACKAGE BINARY [FLAG…]: the tests of a package of MODULE; PACKAGE is a path below it or '.'.
# go_suite_edit SOURCE, where the suite defines it, changes the sources first.
go_suite_build() {
  local dir=$1 module=$2 version=$3 package=$4 binary=$5
  shift 5
  cd "$dir"
  go mod download -json "$module@$version" >module.json
  cp -r "$(python3 -c 'import json; print(json.load(open("module.json"))["Dir"])')" source
  chmod -R u+w source
  ! declare -F go_suite_edit >/dev/null || go_suite_edit source
  (cd source && GOFLAGS=-mod=mod nice go test -c "$@" -o "$dir/$binary" "$package")
}

# go_suite_results LOG: a line NAME,PASS or NAME,FAIL for each test and sub-test; a test that its own checks skip is no result.
go_suite_results() {
  sed -n 's|^ *--- PASS: \([^ ]*\) .*|\1,PASS|p; s|^ *--- FAIL: \([^ ]*\) .*|\1,FAIL|p' "$1" | sort -u
  grep -qE '^(PASS|FAIL)$' "$1" || echo "finishes,FAIL"
}
