# One command does what CI does. `make` alone prints what there is.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
SOURCES := schemas sdk bridge tests bench examples docs requirements

# With an empty home rustup does not find its toolchains: they lie beside the folder of its cargo.
BESIDE_CARGO := $(patsubst %/.cargo/bin/cargo,%/.rustup,$(shell command -v cargo))
ifeq ($(RUSTUP_HOME)$(wildcard $(HOME)/.rustup/settings.toml),)
ifneq ($(wildcard $(BESIDE_CARGO)/settings.toml),)
export RUSTUP_HOME := $(BESIDE_CARGO)
endif
endif

.DEFAULT_GOAL := help
.PHONY: help demo setup test check format lint types layers unit server cluster interop packaging guard faults vectors docs matrix bench build release audit lock clean

help: ## print this list
	@awk -F':.*## ' '/^[a-z][a-z-]*:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# From the locks alone: what is installed has a hash that was written down, what builds us included.
install = $(PIP) install --require-hashes -r requirements/$(1).txt && \
	$(PIP) install --no-deps --no-build-isolation --editable .

$(VENV)/.demo: pyproject.toml requirements/demo.txt
	$(PYTHON) -m venv $(VENV)
	$(call install,demo)
	@touch $@

$(VENV)/.dev: pyproject.toml requirements/dev.txt
	$(PYTHON) -m venv $(VENV)
	$(call install,dev)
	@touch $@ $(VENV)/.demo

demo: $(VENV)/.demo ## the main job, end to end, with a NATS server of its own
	@$(BIN)/aj-bridge demo

setup: $(VENV)/.dev ## a virtual environment with everything the tests need

test: check unit server cluster interop packaging guard ## everything CI runs

check: lint types layers ## format, lint, types, import layers

format: $(VENV)/.dev ## rewrite the sources in the one format
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

lint: $(VENV)/.dev
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)

types: $(VENV)/.dev
	$(BIN)/mypy $(SOURCES)

layers: $(VENV)/.dev
	$(BIN)/lint-imports

unit: $(VENV)/.dev ## tests without a server
	$(BIN)/pytest -n 2 -m "not server and not acceptance and not interop and not packaging"

server: $(VENV)/.dev ## tests against a real nats-server and real processes
	$(BIN)/pytest -n 3 -m "(server or acceptance) and not interop and not packaging"

cluster: $(VENV)/.dev ## the main job, waiting and acts on a cluster of three servers; all acceptance tests: make cluster ALL=tests/acceptance
	AJ_TEST_NODES=3 $(BIN)/pytest -n 2 --dist loadfile -m acceptance $(or $(ALL),$(patsubst %,tests/acceptance/test_%.py,main_job waiting acts))

interop: $(VENV)/.dev ## the Go project's own library, responders in Go, Node, Rust, Java
	$(BIN)/pytest -n 2 -m interop

packaging: $(VENV)/.dev ## the built wheel in clean environments
	$(BIN)/pytest -m packaging

faults: $(VENV)/.dev ## every row of the fault list, judged from what was recorded: make faults ARGS="--row kill-bridge --seed 1-20"
	$(BIN)/python -m tests.faults $(ARGS)

vectors: ## rewrite the golden vectors with the Go project's library
	@interop/upstream/build && interop/upstream/bin/vectors --out schemas/aj_schemas/vectors/required

docs: $(VENV)/.dev ## rewrite the parts of the docs that come from code
	$(BIN)/python docs/generate.py

matrix: $(VENV)/.dev ## run the conformance runner on all responders and rewrite docs/matrix.md
	$(BIN)/python docs/matrix.py

guard: $(VENV)/.dev ## fails where the bridge has become slow beside the plain loop and the floor, by a wide margin
	$(BIN)/python bench/throughput.py --tasks 1500 --rounds 3 --need plain=1 --need floor=0.3

bench: $(VENV)/.dev ## throughput as ratios to everybody that can run here; the other benches are in bench/README.md
	$(call install,bench)
	$(BIN)/python bench/throughput.py --against plain,floor,go,go-local,asynq,taskiq,arq

build: $(VENV)/.dev ## the wheel, in dist/
	$(PIP) wheel --no-deps --no-build-isolation --wheel-dir dist .

release: $(VENV)/.dev ## sdist and wheel, the same bytes each time, and a bill of their materials, in dist/
	$(BIN)/python requirements/release.py dist

audit: $(VENV)/.dev ## locks, floors of versions, and the advisory databases that can be reached from here
	$(BIN)/python requirements/audit.py

LOCK := .cache/lock
UV := $(LOCK)/bin/uv
LOCK_OPTIONS := --universal --python-version 3.11 --generate-hashes --custom-compile-command 'make lock'

lock: ## rewrite the locks in requirements/ after a change of pyproject.toml; UPGRADE=--upgrade takes newer versions
	test -x $(UV) || { $(PYTHON) -m venv $(LOCK) && $(LOCK)/bin/python -m pip --quiet install uv; }
	$(UV) pip compile --quiet $(LOCK_OPTIONS) $(UPGRADE) --extra bridge --extra embedded pyproject.toml requirements/build.in -o requirements/demo.txt
	$(UV) pip compile --quiet $(LOCK_OPTIONS) $(UPGRADE) --extra all pyproject.toml -o requirements/release.txt
	$(UV) pip compile --quiet $(LOCK_OPTIONS) $(UPGRADE) --extra dev pyproject.toml requirements/build.in -o requirements/dev.txt
	$(UV) pip compile --quiet $(LOCK_OPTIONS) $(UPGRADE) --extra dev --extra bench pyproject.toml requirements/build.in -o requirements/bench.txt

clean: ## remove what the targets made
	rm -rf $(VENV) dist build .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis interop/*/bin interop/*/node_modules interop/*/target
