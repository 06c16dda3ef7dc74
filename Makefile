# Everything a fresh machine needs is set up here: a virtual environment in .venv, the native module, and, as root on a
# Debian-like system, the system's packages. `make test` and `make demo` end by saying what they did.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
PYTHON ?= python3
RUST_VERSION := 1.89
VENV := .venv
BIN := $(VENV)/bin
RUST_SOURCES := Cargo.toml Cargo.lock $(shell find crates -name '*.rs' -o -name Cargo.toml)

.PHONY: help demo test test-long test-rust test-python lint bench wheel clean

help:
	@echo "make demo       build, then answer queries over real embeddings"
	@echo "make test       all checks and tests, under 20 minutes on two cores"
	@echo "make test-long  the same and the slow campaigns: fuzzing, concurrency, damaged files"
	@echo "make bench      list benchmarks; make bench NAME=exact-batch runs one"
	@echo "make wheel      a wheel in dist/"
	@echo "make clean      remove what was built"

# Rust new enough, Python new enough, a C linker: each with what to do where it is missing.
$(VENV)/.system: Makefile
	@if ! command -v cc >/dev/null || ! $(PYTHON) -c 'import venv, ensurepip' 2>/dev/null; then \
	    if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	        apt-get update -qq && apt-get install -y -qq build-essential python3-venv python3-dev >/dev/null; \
	    else echo "needs a C compiler and Python's venv: as root, apt-get install build-essential python3-venv" >&2; exit 1; fi; fi
	@command -v cargo >/dev/null || { echo "needs Rust $(RUST_VERSION) or newer: see https://rustup.rs" >&2; exit 1; }
	@found=$$(rustc --version | cut -d' ' -f2); \
	 if [ "$$(printf '%s\n' $(RUST_VERSION) $$found | sort -V | head -1)" != $(RUST_VERSION) ]; then \
	    echo "needs Rust $(RUST_VERSION) or newer, got $$found: rustup update stable" >&2; exit 1; fi
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	    { echo "needs Python 3.10 or newer, got $$($(PYTHON) --version): make PYTHON=python3.12 …" >&2; exit 1; }
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.tools: $(VENV)/.system requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

# The native module, built in place: python/nearest/_native.*.so
$(VENV)/.built: $(VENV)/.tools pyproject.toml $(RUST_SOURCES)
	VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/maturin develop --release --quiet
	@touch $@

demo: $(VENV)/.built
	$(BIN)/nearest demo

lint: $(VENV)/.built
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --quiet -- -D warnings
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy

test-rust:
	cargo test --workspace --exclude nearest-python

test-python: $(VENV)/.built
	$(BIN)/python -m pytest -q

test: lint test-rust test-python
	@echo "make test: lint, types, Rust tests and Python tests passed"

test-long: lint
	cargo test --workspace --exclude nearest-python --release
	$(BIN)/python -m pytest -q -m 'long or not long'
	@echo "make test-long: everything passed, slow campaigns included"

# Benchmarks compare with what is installed: make bench PEERS=1 installs the peers first.
bench: $(VENV)/.built
	@if [ -n "$${PEERS:-}" ]; then $(BIN)/python -m pip install --quiet faiss-cpu hnswlib usearch scann scalable-vs pynndescent scikit-learn matplotlib threadpoolctl; fi
	$(BIN)/python benchmarks/run.py $(or $(NAME),--list)

wheel: $(VENV)/.tools
	$(BIN)/maturin build --release --out dist

clean:
	cargo clean
	rm -rf $(VENV) dist python/nearest/*.so
