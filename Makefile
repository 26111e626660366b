# What people and CI run. `make help` lists it.
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.PHONY: help demo test screenshots fuzz model torture replicas simulate scale bench prepare lint

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 18

demo: ## run the server, a sandbox provider and examples of every grant in one process
	cargo run --locked -- demo

# The runner is last, so that its summary is the last line.
test: prepare ## install what the tests need (see prepare), then run all of them
	cargo test --doc --workspace --locked --quiet
	cargo nextest run --workspace --locked

screenshots: prepare ## pictures of the console's pages, light, dark and on a phone, into docs/screens
	cargo nextest run -p keyholder --locked --run-ignored only --no-capture -E 'test(=console::screens::all)'

SECONDS ?= 60
TARGETS ?=
fuzz: ## run each fuzz target (or TARGETS="definition import") for SECONDS=60
	fuzz/run.sh $(SECONDS) $(TARGETS)

model: ## check the model of renewal in the large (minutes), and print its states and properties
	cargo test --locked -p keyholder-model --test it -- --include-ignored --nocapture

KILLS ?= 2000
ENGINE ?= sqlite
torture: ## kill -9 the server in the middle of renewals, KILLS=2000 times, on ENGINE=sqlite or postgres; print what was lost
	KILLS=$(KILLS) ENGINE=$(ENGINE) cargo nextest run -p keyholder --locked --run-ignored only --no-capture -E 'test(=torture::killed_many_times)'

ROUNDS ?= 50
CALLERS ?= 2000
replicas: ## three processes on one PostgreSQL, each with CALLERS=2000, for ROUNDS=50: one request at the provider each
	ROUNDS=$(ROUNDS) CALLERS=$(CALLERS) cargo nextest run -p keyholder --locked --run-ignored only --no-capture -E 'test(/^replicas::/)'

SEEDS ?= 1000
simulate: ## renewal in a simulated world: SEEDS=100000 runs as many, SEED=17 replays one and tells it
	SEED=$(SEED) SEEDS=$(SEEDS) FROM=$(FROM) cargo test --locked -p keyholder-broker --lib simulation::simulate -- --ignored --nocapture

scale: ## minutes: the scheduler at a million connections, and an outage with 100,000
	cargo nextest run --release -p keyholder-broker --locked --run-ignored only --no-capture scale:: 100_000

bench: ## beside nginx and Envoy: writes bench/RESULTS.md, 15 minutes; QUICK=1 one minute, ONLY="handout gateway-small-32" some cases
	@bench/prepare.sh
	@python3 bench/bench.py

prepare: ## install what the tests need: cargo-nextest, Chromium, PostgreSQL, nginx, authorization servers, HTTP clients
	@tests/prepare.sh

lint: ## formatting, clippy and the documentation's links; a warning is an error
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked
