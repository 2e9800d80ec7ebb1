# Everything a contributor runs. `make` lists it; continuous integration calls these targets and nothing else.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-print-directory

VENV ?= .venv
PY := $(VENV)/bin/python
LOGS := target/logs
# The Python that .venv is made of: PYTHON=/path/to/python3, else the first one that is new enough.
PYTHON ?=
# Where `make demo` runs its broker: BROKER=redis://… or amqp://…, else the embedded SQLite broker.
BROKER ?=
# Which worker runs the demo's receivers: WORKER=celery, else ours.
WORKER ?=
# What `make test` hands to pytest: make test PYTEST_ARGS="-k transactions".
PYTEST_ARGS ?=
# In how many processes the Python tests run: most of the time they wait. `PROCESSES=0` is one after the other.
PROCESSES ?= 6
PARALLEL := -n $(PROCESSES) --dist loadgroup

export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin
# The binding is built for the Python of .venv, whichever else is on PATH.
export PYO3_PYTHON := $(CURDIR)/$(PY)

timed = @scripts/timed.sh $(LOGS)/phases
say = @printf '\033[1m==> %s\033[0m\n' "$(1)"

.PHONY: help
help: ## List what can be run
	@echo "usage: make <target>"; echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  \033[1m%-14s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo; echo "PYTHON=/path/to/python3 picks the Python that .venv is made of, BROKER=redis://… and WORKER=celery the broker and the worker of the demo."

# The stamp is newer than the lock file when .venv holds what the lock file says.
$(VENV)/.locked: requirements/dev.txt scripts/venv.sh scripts/find-python.sh
	@python="$(PYTHON)"; scripts/venv.sh "$${python:-$$(scripts/find-python.sh 3.11)}" $(VENV) requirements/dev.txt
	@touch $@

.PHONY: venv
venv: $(VENV)/.locked ## Create .venv with everything that development needs

.PHONY: build
build: venv ## Build the native module and install the package into .venv, editable
	$(call say,building the native module (the first time takes minutes))
	@VIRTUAL_ENV=$(CURDIR)/$(VENV) PIP_QUIET=1 $(VENV)/bin/maturin develop --release --locked

.PHONY: build-peer
build-peer: ## Build the Rust program that the Python tests exchange signals with
	$(call say,building the Rust program that sends to Django and receives from it)
	@cargo build --locked -p async-signals-peer

# The programs in Rust that the Python tests run, in one folder, for where there is no cargo.
.PHONY: programs
programs: build-peer
	@cargo build --locked --package warehouse
	@cargo build --locked --package celery-async-signals --examples
	@mkdir -p target/programs
	@for program in async-signals-peer warehouse examples/quickstart examples/fan_out; do \
	    cp "$${CARGO_TARGET_DIR:-target}/debug/$$program" target/programs; done

.PHONY: servers
servers: ## Install the servers that the tests start, where they are missing
	@scripts/servers.sh

.PHONY: test
test: ## Run everything: format, lints, Rust tests, Python tests; then a table of what ran, and how long it took
	@rm -f $(LOGS)/phases
	$(timed) servers $(MAKE) servers
	$(timed) building $(MAKE) build
	$(timed) lints $(MAKE) lint
	$(timed) "Rust tests" $(MAKE) test-rust
	$(timed) "simulation" $(MAKE) simulation
	$(timed) "Python tests" $(MAKE) test-python || { $(PY) scripts/tested.py $(LOGS); exit 1; }
	@$(PY) scripts/tested.py $(LOGS)

.PHONY: test-rust
test-rust: ## Run the Rust tests
	$(call say,Rust tests)
	@mkdir -p $(LOGS)
	@cargo test --locked 2>&1 | tee $(LOGS)/cargo.log

# How many seeds `make simulation` tries: make simulation SEEDS=1000000.
SEEDS ?= 10000

.PHONY: simulation
simulation: ## Simulate senders and workers under every fault, for thousands of seeds
	$(call say,$(SEEDS) seeds of simulated faults)
	@mkdir -p $(LOGS)
	@ASYNC_SIGNALS_SEEDS=$(SEEDS) cargo test --locked --profile simulation --no-default-features \
	    --package celery-async-signals --test simulation -- --nocapture 2>&1 | tee $(LOGS)/simulation.log

.PHONY: test-python
test-python: build-peer ## Run the Python tests against what is built
	$(call say,Python tests)
	@mkdir -p $(LOGS)
	@$(PY) -m pytest $(PARALLEL) --junitxml=$(LOGS)/pytest.xml $(PYTEST_ARGS) 2>&1 | tee $(LOGS)/pytest.log

.PHONY: soak
soak: servers build ## Keep our worker under full load for ten minutes on each broker, and kill fleets for as long
	$(call say,our worker under load)
	@mkdir -p $(LOGS)
	@# Three at a time: most of what a fleet does is to wait for its dead. The reports stand at the end.
	@ASYNC_SIGNALS_SOAK=600 $(PY) -m pytest -n 3 --dist load -v -rP tests/test_soak.py tests/test_faults_fleets.py \
	    $(PYTEST_ARGS) 2>&1 | tee $(LOGS)/soak.log

# $(1) are the versions, $(2) is what the logs are called, $(3) more of pytest's arguments.
test_versions = @mkdir -p $(LOGS); scripts/test-versions.sh $(1) $(PARALLEL) --junitxml=$(LOGS)/$(2).xml $(3) $(PYTEST_ARGS) \
	2>&1 | tee $(LOGS)/$(2).log
# What is asked of Valkey, where all tests have run on Redis: everything that our worker and the sends do with it.
ON_VALKEY := -k redis tests/test_redis_consumer.py tests/test_delivery.py tests/test_retries.py tests/test_our_worker.py

.PHONY: test-newest
test-newest: wheel programs ## Run the Python tests on the newest of everything, in a Debian that debootstrap makes
	$(call say,Python tests on the newest of everything)
	$(call test_versions,newest,newest)
	@TESTS_REDIS=valkey-server $(MAKE) test-newest-valkey

.PHONY: test-newest-valkey
test-newest-valkey:
	$(call test_versions,newest,valkey,$(ON_VALKEY))

.PHONY: test-trixie
test-trixie: wheel programs
	$(call say,Python tests on Debian trixie)
	$(call test_versions,trixie,trixie)

.PHONY: test-oldest
test-oldest: wheel programs
	$(call say,Python tests on the oldest of everything)
	$(call test_versions,oldest,oldest)

.PHONY: test-all
test-all: test test-newest ## Run everything, and the Python tests also on what is oldest, and on what is between
	@TESTS_REDIS=valkey-server $(MAKE) test-trixie
	@$(MAKE) test-oldest

.PHONY: lint
lint: venv ## Check formats, lints and types
	$(call say,formats and lints)
	@cargo fmt --all --check
	@cargo clippy --locked --workspace --all-targets -- -D warnings
	@RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --quiet
	@$(VENV)/bin/ruff format --check
	@$(VENV)/bin/ruff check
	@$(VENV)/bin/mypy

.PHONY: powerset
powerset: ## Lint the Rust crate with every set of its features
	$(call say,every set of features)
	@scripts/powerset.sh

.PHONY: deny
deny: ## Check licences, advisories and sources of the Rust dependencies (needs cargo-deny)
	@command -v cargo-deny > /dev/null || { echo "cargo-deny is missing: cargo install --locked cargo-deny" >&2; exit 1; }
	@cargo deny --locked check

.PHONY: fmt
fmt: venv ## Format everything
	@cargo fmt --all
	@$(VENV)/bin/ruff format
	@$(VENV)/bin/ruff check --fix

DEMO_ARGS = $(if $(BROKER),--broker $(BROKER)) $(if $(WORKER),--worker $(WORKER))

.PHONY: demo
demo: build ## Run the main job: a real shop, a real worker, orders placed, receivers run
	@$(PY) examples/shop/demo.py $(DEMO_ARGS)

.PHONY: demo-serve
demo-serve: build ## The same shop, kept up for you to click through
	@$(PY) examples/shop/demo.py --serve $(DEMO_ARGS)

.PHONY: demo-polyglot
demo-polyglot: build ## The same shop in Python, its parcels packed by a program in Rust
	@$(PY) examples/polyglot/demo.py $(if $(BROKER),--broker $(BROKER))

# Beside which commit `make instructions` counts: BASE=<commit>.
BASE ?= HEAD~1

.PHONY: instructions
instructions: ## Count the instructions of the hot paths, beside those of an earlier commit (needs valgrind)
	@python3 scripts/instructions.py $(BASE)

.PHONY: bench
bench: build servers ## Measure against Celery, side by side: its publishing and its worker
	@$(PY) benches/run.py

.PHONY: wheel
wheel: venv ## Build the wheel for any environment (dist/)
	$(call say,building the wheel)
	@VIRTUAL_ENV=$(CURDIR)/$(VENV) $(VENV)/bin/maturin build --release --locked --out dist

.PHONY: lock
lock: ## Resolve requirements/dev.in into requirements/dev.txt, under the oldest Python supported
	@scripts/lock.sh

.PHONY: clean
clean: ## Remove everything that was built, .venv included
	@rm -rf $(VENV) dist target .pytest_cache .ruff_cache .mypy_cache .hypothesis python/async_signals/_native*.so
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
