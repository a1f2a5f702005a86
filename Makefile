# What is done to the sources every day. Every target needs a Rust toolchain and a C compiler; `test` also PostgreSQL
# and Node, which it installs on Debian and its kin when they are missing.

.PHONY: run test fuzz soak mutants broken-history lint bench install-test-tools

# A server on this machine, with everything it keeps in ./data.
run:
	cargo run --release

# All suites, on SQLite and on a private PostgreSQL.
test: install-test-tools
	cargo test --locked

# A minute of bad and damaged input for each reader of tokens, keys, codes and names; says how much each was given.
fuzz:
	TENANTRY_FUZZ_SECONDS=60 cargo test --locked --lib -- --nocapture fuzzed | grep -v '^$$'

# What races and what goes wrong, for longer than in every run of the tests: the end of a session with those who refresh
# it, and servers that are killed and stopped while their quotas are used.
soak: install-test-tools
	TENANTRY_RACE_ROUNDS=300 cargo test --locked --test suite -- --nocapture no_token_outlives_the_end_of_its_session
	TENANTRY_HISTORY_SEED=$$(date +%s) TENANTRY_HISTORY_ROUNDS=300 cargo test --locked --test history -- --nocapture no_history_breaks_a_guarantee

# Quota engines that are broken on purpose: the simulation finds each of them out, or this fails.
mutants:
	cargo test --locked --features mutants --test simulation -- mutants

# The same with servers and real databases: the checker of histories finds each of them out, or this fails.
broken-history: install-test-tools
	for broken in broken-fence broken-ack broken-recall; do \
	  TENANTRY_HISTORY_ROUNDS=60 cargo test --locked --features $$broken --test history -- \
	    --nocapture no_history_breaks_a_guarantee || exit 1; \
	done

# What must be clean before a change goes in.
lint:
	cargo fmt --check
	cargo clippy --all-targets --locked -- -D warnings

# Ratios against a bare gRPC server, measured in one run.
bench:
	cargo bench --locked

# What the tests start of others: PostgreSQL, of which Debian keeps initdb out of PATH, and programs for Node.
install-test-tools:
	@as_root=; [ "$$(id -u)" = 0 ] || as_root=sudo; missing=; \
	command -v initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing="postgresql"; \
	command -v node >/dev/null && command -v npm >/dev/null || missing="$$missing nodejs npm"; \
	if [ -n "$$missing" ]; then \
	  $$as_root apt-get update && \
	  $$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $$missing; \
	fi
	@cd tests/node && { [ node_modules/.package-lock.json -nt package-lock.json ] || npm ci --no-audit --no-fund; }
