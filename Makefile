# Everything that a developer runs; bare `make` lists it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCK := requirements-dev.lock
# The lock is resolved on the oldest Python: what only that one needs must be in it.
LOCK_PYTHON := 3.11
# More than there are cores, because tests wait for something half of their time; each takes 1.3 GB, with what it starts.
# They share one Kafka.
TEST_PROCESSES ?= 6
PYTEST = $(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder --max-worker-restart 0
FURTHER := $(addprefix test-,faults links kills following stores commands docs packaging readers browser)
# Seconds after which a target fails, whatever is left of it.
LIMIT ?= 3600
# Of what is random in make test-faults and make soak; another one each time where none is given.
SEED ?=
MINUTES ?= 20
MUTANTS ?= 100
DOCS := build/docs
COVERAGE := .cache/coverage
PIP_FLAGS := --quiet --no-input --disable-pip-version-check

# Tests start hundreds of processes, and each would compile all of this again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help venv demo test $(FURTHER) test-fuzz test-pythons test-oldest test-cluster test-all repeat coverage fuzz mutate soak screenshots \
  bench bench-links bench-night bench-catalog bench-size docs lint types format lock dist clean
.DELETE_ON_ERROR:

help:  ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

venv: $(VENV)/.installed  ## Make .venv with everything locked (PYTHON=python3.12 chooses the Python)

demo: venv  ## Run the demo: a small transfer that needs no Kafka
	@$(BIN)/fink-dask demo

test: venv  ## Run the tests that each change needs (PYTEST_ARGS="-k offsets" for some); 10 minutes
	@$(PYTEST) --session-timeout $(LIMIT) $(PYTEST_ARGS)

# What takes longer: the markers of tests/harness/targets.py. Minutes are estimates for two quiet cores.
test-faults:  ## Run long faults of brokers, disks and networks (SEED=1 repeats what was random); 8 minutes
test-links:  ## Run transfers over slow, far and broken links; 15 minutes
test-kills:  ## Run kills after every operation and at random moments; 10 minutes
test-following:  ## Run what follows topics, and takes several at once; 6 minutes
test-stores:  ## Run transfers to an object store that fails; 5 minutes
test-commands:  ## Run commands in all their combinations, and on other Dask clusters; 8 minutes
test-docs:  ## Run every command of every page; 8 minutes
test-packaging:  ## Install what is released into environments of its own; 3 minutes
test-readers:  ## Read datasets with every reader, Spark among them, and as catalogues; 6 minutes
test-browser:  ## Look at dashboard, report and terminal in a browser; 4 minutes

$(FURTHER): test-%: venv
	@FINK_DASK_TEST_SEED=$(SEED) $(PYTEST) --target=$* --session-timeout $(LIMIT) $(PYTEST_ARGS)

test-fuzz: venv  ## Run the tests that make up their examples with fifteen times as many; 10 minutes
	@FINK_DASK_TEST_EXAMPLES=15 $(PYTEST) -m hypothesis --target=all --session-timeout $(LIMIT) $(PYTEST_ARGS)

test-pythons: venv  ## Run the demo and tests of each stage on every supported Python that is here, as locked; minutes
	@$(BIN)/python -m pytest --target=environments tests/packaging/test_supported.py -k python -rA $(PYTEST_ARGS)

test-oldest: venv  ## Run the same with the oldest libraries that pyproject.toml allows; minutes
	@$(BIN)/python -m pytest --target=environments tests/packaging/test_supported.py -k oldest -rA $(PYTEST_ARGS)

test-cluster: venv  ## Run the tests on a real Slurm, a real Grid Engine and several hosts; needs root, and installs on Debian
	@$(BIN)/python -m pytest -n 2 --dist loadfile --target=batch tests/batch $(PYTEST_ARGS)

test-all: venv  ## Run all of these, one after the other; more than an hour, as root on Debian
	@failed=; for target in test $(FURTHER) test-fuzz test-oldest test-pythons test-cluster; do \
	  $(MAKE) $$target || failed="$$failed $$target"; \
	done; test -z "$$failed" || { echo "failed:$$failed" >&2; exit 1; }

repeat: venv  ## Run each test 20 times, 5 of these beside busy processes (REPEAT_ARGS="--times 3 tests/kafka"); goes on
	@$(BIN)/python -m tests.repeat $(REPEAT_ARGS)

coverage: $(COVERAGE)/.installed venv  ## Report which lines tests reach, in commands and workers too (PYTEST_ARGS=tests/ledger)
	@mkdir -p build
	@rm -f build/coverage.data*
	-@COVERAGE_FILE=$(CURDIR)/build/coverage.data $(COVERAGE)/bin/coverage run -m pytest -n $(TEST_PROCESSES) --dist loadfile $(PYTEST_ARGS)
	@COVERAGE_FILE=$(CURDIR)/build/coverage.data $(COVERAGE)/bin/coverage combine --quiet
	@COVERAGE_FILE=$(CURDIR)/build/coverage.data $(COVERAGE)/bin/coverage html --quiet --directory build/coverage
	@COVERAGE_FILE=$(CURDIR)/build/coverage.data $(COVERAGE)/bin/coverage report --skip-covered --sort=cover

# An environment of its own, that finds everything in .venv: only who asks for the report needs it.
$(COVERAGE)/.installed: | venv
	@$(BIN)/python -m venv --clear $(COVERAGE)
	@$(COVERAGE)/bin/python -m pip install $(PIP_FLAGS) 'coverage>=7.10'
	@site() { $$1/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; }; \
	  echo "import site; site.addsitedir('$$(site $(VENV))')" >"$$(site $(COVERAGE))/of-the-project.pth"
	@touch $@

fuzz: venv  ## Feed whatever reads from outside with damaged input (MINUTES=60, SEED=1)
	@$(BIN)/python -m tests.fuzz --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

mutate: venv  ## Change the code in 100 places, one at a time, and see what no test notices (SEED=1, MUTANTS=100); an hour
	@$(BIN)/python -m tests.mutate --count $(MUTANTS) $(if $(SEED),--seed $(SEED))

soak: venv  ## Transfer while everything that can happen does (MINUTES=20, SEED=1)
	@$(BIN)/python -m tests.soak --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

screenshots: venv  ## Make the pictures in docs/ anew: dashboard, report and terminal, from the tests that look at them
	@FINK_DASK_TEST_PICTURES=docs $(BIN)/python -m pytest -q --target=browser tests/dashboard/test_dashboard.py \
	  tests/dashboard/test_dashboard_size.py tests/report/test_report.py tests/docs/test_terminal.py

bench: venv  ## Measure against fink-client, Spark and Flink (BENCH_ARGS="--scale small" for some minutes); an hour
	@$(BIN)/python -m benchmarks $(BENCH_ARGS)

bench-links: venv  ## Measure over slow, far and lossy links (BENCH_ARGS="--resume"); as root; 90 minutes
	@$(BIN)/python -m benchmarks.links $(BENCH_ARGS)

bench-night: venv  ## Follow a night that is larger than its disk (BENCH_ARGS="--gigabytes 20"); as root; minutes
	@$(BIN)/python -m benchmarks.night $(BENCH_ARGS)

bench-catalog: venv  ## Grow a HATS catalog night after night, killed in each (BENCH_ARGS="--alerts 200000"); ten minutes
	@$(BIN)/python -m benchmarks.catalog $(BENCH_ARGS)

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
	@echo "installing $(LOCK) into $(VENV), which takes a minute or two"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install $(PIP_FLAGS) --require-hashes --requirement $(LOCK)
	@touch $@

$(VENV)/.installed: $(VENV)/.locked pyproject.toml
	@$(BIN)/python -m pip install $(PIP_FLAGS) --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m pip check >/dev/null || \
	  { $(BIN)/python -m pip check; echo "error: $(LOCK) lags behind pyproject.toml: make lock" >&2; exit 1; }
	@touch $@
