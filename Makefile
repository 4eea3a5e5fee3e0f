# Everything that a developer runs; bare `make` lists it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCK := requirements-dev.lock
# The lock is resolved on the oldest Python: what only that one needs must be in it.
LOCK_PYTHON := 3.11
# Each starts a Kafka of its own, and most tests wait for something.
TEST_PROCESSES := 2
# Of what is random in make test-faults and make soak; another one each time where none is given.
SEED ?=
MINUTES ?= 20
DOCS := build/docs
PIP_FLAGS := --quiet --no-input --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help venv demo test test-cluster test-faults test-pythons test-oldest soak screenshots bench bench-size docs \
  lint types format lock dist clean
.DELETE_ON_ERROR:

help:  ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

venv: $(VENV)/.installed  ## Make .venv with everything locked (PYTHON=python3.12 chooses the Python)

demo: venv  ## Run the demo: a small transfer that needs no Kafka
	@$(BIN)/fink-dask demo

test: venv  ## Run all tests (PYTEST_ARGS="-k offsets" for some); starts two real Kafkas
	@$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile tests/ $(PYTEST_ARGS)

test-cluster: venv  ## Run the tests on a real Slurm, a real Grid Engine and several hosts; needs root, and installs on Debian
	@$(BIN)/python -m pytest -m batch -n $(TEST_PROCESSES) --dist loadfile tests/batch $(PYTEST_ARGS)

test-faults: venv  ## Run all faults, those that take long as well (SEED=1 repeats what was random); half an hour at most
	@FINK_DASK_TEST_SEED=$(SEED) $(BIN)/python -m pytest -m "faults or not faults" tests/faults $(PYTEST_ARGS)

test-pythons: venv  ## Run the demo and tests of each stage on every supported Python that is here, as locked; minutes
	@$(BIN)/python -m pytest -m environments tests/packaging/test_supported.py -k python -rA $(PYTEST_ARGS)

test-oldest: venv  ## Run the same with the oldest libraries that pyproject.toml allows; minutes
	@$(BIN)/python -m pytest -m environments tests/packaging/test_supported.py -k oldest -rA $(PYTEST_ARGS)

soak: venv  ## Transfer while everything that can happen does (MINUTES=20, SEED=1)
	@$(BIN)/python -m tests.soak --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

screenshots: venv  ## Make the pictures in docs/ anew: dashboard, report and terminal, from the tests that look at them
	@FINK_DASK_TEST_PICTURES=docs $(BIN)/python -m pytest -q tests/dashboard/test_dashboard.py tests/dashboard/test_dashboard_size.py \
	  tests/report/test_report.py tests/docs/test_terminal.py

bench: venv  ## Measure against fink-client and Spark (BENCH_ARGS="--scale small" for some minutes); an hour
	@$(BIN)/python -m benchmarks $(BENCH_ARGS)

bench-size: venv  ## Measure what an installation takes, beside fink-client's
	@$(BIN)/python -m benchmarks.size

docs: venv  ## Build the documentation as a site, in build/docs; a warning is an error
	@$(BIN)/python -m sphinx --quiet --nitpicky --fail-on-warning --keep-going --fresh-env -b html -c docs . $(DOCS)

lint: venv  ## Check style and formatting
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: venv  ## Check types, of the package and of the test harness
	@$(BIN)/mypy
	@$(BIN)/mypy --explicit-package-bases tests/conftest.py tests/harness

format: venv  ## Format the code and fix what can be fixed
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .

# Without `venv` before it: a lock that lags behind pyproject.toml is what this mends.
lock: | $(VENV)/.locked  ## Resolve requirements-dev.lock again (LOCK_ARGS=--upgrade for the newest of everything)
	@$(BIN)/python -c 'import sys; sys.exit("%d.%d" % sys.version_info[:2] != "$(LOCK_PYTHON)")' || \
	  { echo "error: the lock is made with Python $(LOCK_PYTHON): make clean, then make lock PYTHON=python$(LOCK_PYTHON)" >&2; exit 1; }
	CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/pip-compile --quiet --extra dev --extra hats --build-deps-for editable \
	  --generate-hashes --allow-unsafe --strip-extras --no-emit-index-url --no-emit-trusted-host \
	  --no-emit-find-links --no-emit-options $(LOCK_ARGS) --output-file $(LOCK) pyproject.toml

dist: venv  ## Build the wheel and the source distribution into dist/, as a release does
	@rm -rf dist
	@$(BIN)/python -m build --no-isolation --outdir dist .

clean:  ## Remove .venv, the downloaded Kafka, caches and builds
	rm -rf $(VENV) .cache build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find fink_dask tests benchmarks -name __pycache__ -prune -exec rm -rf {} +

# Two stamps: a changed lock makes .venv anew, a changed pyproject.toml only installs the package again.
$(VENV)/.locked: $(LOCK)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "error: fink-dask needs Python 3.11 or newer and $(PYTHON) is $$($(PYTHON) -V 2>&1 || true): make venv PYTHON=python3.12" >&2; exit 1; }
	@if ! $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null && [ -e /etc/debian_version ] && [ "$$(id -u)" = 0 ]; then \
	  apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends python3-venv; \
	fi </dev/null
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "error: $(PYTHON) has no venv or ensurepip: install python3-venv (Debian, Ubuntu) or another Python" >&2; exit 1; }
	@echo "installing $(LOCK) into $(VENV)"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install $(PIP_FLAGS) --require-hashes --requirement $(LOCK)
	@touch $@

$(VENV)/.installed: $(VENV)/.locked pyproject.toml
	@$(BIN)/python -m pip install $(PIP_FLAGS) --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m pip check >/dev/null || \
	  { $(BIN)/python -m pip check; echo "error: $(LOCK) lags behind pyproject.toml: make lock" >&2; exit 1; }
	@touch $@
