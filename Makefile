# What is done to the sources every day. Every target needs a Rust toolchain and a C compiler; `test` also PostgreSQL,
# which it installs on Debian and its kin when it is missing.

.PHONY: run test lint bench install-test-tools

# A server on this machine, with everything it keeps in ./data.
run:
	cargo run --release

# All suites, on SQLite and on a private PostgreSQL.
test: install-test-tools
	cargo test --locked

# What must be clean before a change goes in.
lint:
	cargo fmt --check
	cargo clippy --all-targets --locked -- -D warnings

# Ratios against a bare gRPC server, measured in one run.
bench:
	cargo bench --locked

# PostgreSQL's programs: the tests start a server of their own with them. Debian keeps initdb out of PATH.
install-test-tools:
	@if ! command -v initdb >/dev/null && ! ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1; then \
	  as_root=; [ "$$(id -u)" = 0 ] || as_root=sudo; \
	  $$as_root apt-get update && \
	  $$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends postgresql; \
	fi
