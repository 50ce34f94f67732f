# Two commands set everything up on a machine with Python 3.11+, git and make: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
CHECK ?=
CARELEDGER_CRASH_KILLS ?= 10000
CARELEDGER_CRASH_SEED ?= 1
FUZZ_INPUTS ?= 1000000
REPLAY_TRANSACTIONS ?= 1000000
REPLAY_SEED ?= 1
NETWORKS := $(addprefix tests/,e2e fault interop net)
UNITS := $(addprefix tests/,fuzz property replay unit vectors)
FAULT_SECONDS ?= 300
FAULT_SEED ?= 1

.PHONY: demo test test-networks test-units lint fuzz crash replay network-faults bench lock clean

.venv/runtime: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	$(BIN)/python -m compileall -q src/careledger
	touch $@

.venv/dev: .venv/runtime requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	touch $@

demo: .venv/runtime
	$(BIN)/careledger demo $(if $(CHECK),--check)

lint: .venv/dev
	$(BIN)/ruff check src tests
	$(BIN)/ruff format --check src tests
	$(BIN)/lint-imports
	$(BIN)/mypy

# Two at a time: one half waits for networks of processes, the other computes.
test: lint
	$(MAKE) --no-print-directory --jobs=2 --output-sync=target --keep-going test-networks test-units

test-networks: .venv/dev
	$(BIN)/python -m pytest $(NETWORKS)

test-units: .venv/dev
	$(BIN)/python -m pytest $(UNITS)

# SIGKILLs at random moments under load, over fresh networks; the last line is a summary. The same seed repeats a run.
crash: .venv/dev
	$(BIN)/python tests/fault/crash.py --kills $(CARELEDGER_CRASH_KILLS) --seed $(CARELEDGER_CRASH_SEED)

# Every parser of foreign bytes, each in its own process; what fails is kept in build/fuzz. The last line is a summary.
fuzz: .venv/dev
	$(BIN)/python tests/fuzz/run.py --inputs $(FUZZ_INPUTS)

# Random transactions through both directory engines: one app hash a block, or the seed that repeats the difference.
replay: .venv/dev
	$(BIN)/python tests/replay/replay.py --transactions $(REPLAY_TRANSACTIONS) --seed $(REPLAY_SEED)

# Four real CometBFT validators under load, with faults in random order; the last line is a summary.
network-faults: .venv/dev
	$(BIN)/python tests/net/faults.py --seconds $(FAULT_SECONDS) --seed $(FAULT_SEED)

# Needs uv on PATH. Locks carry hashes and name no index.
lock:
	uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --python-version 3.11 --custom-compile-command "make lock" pyproject.toml --group build -o requirements.lock
	uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --python-version 3.11 --custom-compile-command "make lock" pyproject.toml --group build --group dev -c requirements.lock -o requirements-dev.lock

# The measurements of docs/results.md; wants a quiet machine.
bench: .venv/runtime
	$(BIN)/careledger bench --json

clean:
	rm -rf .venv .cache build .mypy_cache .pytest_cache .ruff_cache .hypothesis
