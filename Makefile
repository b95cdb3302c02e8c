# One-word commands. `make demo` and `make test` do all their set-up on a fresh Debian machine with a Rust
# toolchain; the others expect what those install.
.PHONY: sim trials fuzz reference demo test corpus-build lint bench bench-queue doc deny features api api-check ci fmt

# Builds GNU hello through melange-server in the embedded sandbox, installs the package and runs it.
demo:
	@examples/hello/demo.sh

# Everything: unit, property, conformance, integration and end-to-end tests on a real BuildKit, the examples,
# the demo.
test:
	@tests/run.sh

# Builds Wolfi's own definitions, unmodified, as far as Debian's archive has what they fetch; prints a table.
corpus-build:
	@tests/corpus/run.sh

# Schedulers, a store and builders under a virtual clock with seeded faults: so many seeds, from FIRST on.
sim:
	MELANGE_SIM_FIRST=$(or $(FIRST),1) MELANGE_SIM_SEEDS=$(or $(SEEDS),1000) cargo test --release \
		-p melange-remote-sdk --no-default-features --features conformance --lib simulation:: -- --nocapture

# What servers work with is killed and taken away, at length, on release programs.
trials:
	@tests/run.sh trials

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

fmt:
	cargo fmt --all

# Writes the generated parts of docs/ anew.
reference:
	cargo build -p melange-cli
	cargo build -p melange-server
	$(or $(CARGO_TARGET_DIR),target)/debug/melange-server --print-api markdown > docs/api.md
	$(or $(CARGO_TARGET_DIR),target)/debug/melange schema > docs/definition.schema.json
	$(or $(CARGO_TARGET_DIR),target)/debug/melange schema --pipeline > docs/pipeline.schema.json
	$(or $(CARGO_TARGET_DIR),target)/debug/melange schema --event > docs/event.schema.json
	$(or $(CARGO_TARGET_DIR),target)/debug/melange pipelines reference > docs/pipelines.md

# Fuzzes the parser and the compiler for half an hour each; needs a nightly compiler and cargo-fuzz.
fuzz:
	@fuzz/run.sh

bench:
	cargo build --release -p melange-cli
	cargo bench -p melange-remote

# The queue on each store, beside graphile-worker and pg-boss.
bench-queue:
	@benches/queue.sh

doc:
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

# Licences, sources, bans and advisories of all dependencies.
deny:
	@tests/deny.sh

# The SDK with no feature, each one alone, and all of them.
features:
	@tests/features.sh

# The library's public items, as `melange-remote-sdk/api.txt` has them: written anew, or compared.
api:
	@tests/api.sh write

api-check:
	@tests/api.sh check

# What CI runs, in its order.
ci: lint deny doc features api-check test
