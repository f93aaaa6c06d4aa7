# make run: a broker on 127.0.0.1:9092.  make test: everything that must pass.  make demo: the whole story in a minute.
SHELL := /bin/bash
CARGO_TARGET_DIR ?= $(CURDIR)/target
export CARGO_TARGET_DIR
SILTSTONE_CACHE ?= $(HOME)/.cache/siltstone
export SILTSTONE_CACHE
SILTSTONE_BIN := $(CARGO_TARGET_DIR)/release/siltstone
export SILTSTONE_BIN

.PHONY: run demo dev test unit lint build e2e conformance compat bench setup clean-data

build:
	cargo build --release --locked -p siltstone

run: build
	SILTSTONE_BANNER=1 $(SILTSTONE_BIN) serve

demo: build
	tests/e2e/demo.sh

dev: build
	tests/e2e/dev.sh

test: lint unit build conformance e2e
	tests/compat/run.sh fast java-tools

lint:
	cargo fmt --all --check
	cargo clippy --workspace --locked --no-deps -- -D warnings

unit:
	cargo test --workspace --locked --exclude siltstone-conformance

conformance: build
	cargo test --locked -p siltstone-conformance

e2e: build
	tests/e2e/run.sh

compat: build
	tests/compat/run.sh all
	tests/e2e/run.sh -m slow

bench: build
	tests/bench/run.sh
