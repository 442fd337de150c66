# Two commands on a fresh machine with a Rust toolchain: `make demo` and `make test`.

SHELL := /bin/bash
VENV  := target/venv

.PHONY: demo test torture needs bench clean

# Shows the gate at work until Ctrl-C, or so long: make demo ARGS="--seconds 20"
demo:
	@cargo run --locked --bin tollgate -- demo $(ARGS)

# Everything that must hold before a change goes in. Installs what the tests need when it is missing.
test: needs $(VENV)/ready
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	cargo test --locked --all-targets

# What is too long for every change: ten thousand reloads under load.
torture:
	TORTURE_RELOADS=10000 cargo test --locked --test it -- --nocapture reload::a_thousand_reloads

# Debian packages, or the line that installs them.
needs:
	@tests/needs.sh

# The vendor's Python SDK, which the tests call the gate with.
# Its requests and urllib3 are pinned too: they decide what goes over the wire.
$(VENV)/ready: tests/sdk/requirements.txt | needs
	python3 -m venv --clear $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

# Timings; results and comparisons with the last run are in target/criterion.
bench:
	cargo bench --locked $(ARGS)

clean:
	cargo clean
