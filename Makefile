# Everything a developer does, by name. `make` alone prints the list.
# A target's text after ## is what `make help` shows.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
PYTEST := $(BIN)/python -m pytest
# Hundreds of tests start a daemon or a command: they shall not compile the same modules anew each time.
unexport PYTHONDONTWRITEBYTECODE
# How many files of tests go at once; each worker has servers of its own. 0 is one after the other, without workers. On
# two cores four are quicker than three, since much of the time somebody waits for a lease, a time-out or a broker.
WORKERS ?= 4

.DEFAULT_GOAL := help
.PHONY: help venv install demo test suite unit contract simulation integration chaos browser systemd lint format bench man lock clean

help: ## This list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: $(STAMP) ## Make .venv with the locked dependencies and this checkout in it

install: venv ## The same as venv

# The lock holds a hash for each file, so the checkout itself is installed apart, without dependencies and without
# a build environment of its own.
$(STAMP): constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "outboxd needs Python 3.11 or newer; give one with: make PYTHON=python3.11 …" >&2; exit 1; }
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV) || \
		{ echo "making $(VENV) failed; on Debian: apt-get install python3-venv" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: venv ## 1,000 rows through an embedded PostgreSQL and an in-process Kafka; leaves nothing behind
	$(BIN)/outboxd demo

# Lint takes one core for a quarter of a minute, which the tests mostly leave it: they go side by side.
test: venv ## Lint, and beside it every test but the long chaos: needs Java 17 and Maven for a real Kafka, and PostgreSQL 15 or newer
	@$(MAKE) --no-print-directory -j 2 lint suite || \
		{ echo 'make test: lint or a test failed; `make lint` says in seconds which it was' >&2; exit 1; }

suite: venv ## The tests of `make test`, without lint
	$(PYTEST) -n $(WORKERS) --dist loadfile --no-loadscope-reorder \
		$(wildcard tests/unit tests/contract tests/simulation tests/integration)

unit: venv ## Tests without network
	$(PYTEST) tests/unit

contract: venv ## The same suite on the fakes and on the real servers
	$(PYTEST) tests/contract

simulation: venv ## The real loop under a simulated clock, database and broker
	$(PYTEST) tests/simulation

integration: venv ## Real PostgreSQL, real Kafka
	$(PYTEST) tests/integration

chaos: venv ## Daemons, servers and faults from a seed
	$(PYTEST) tests/chaos

browser: venv ## The page in a headless Chromium, as a person meets it
	$(PYTEST) tests/browser

systemd: venv ## docs/install.md on a machine of its own that boots systemd; wants root, systemd 252, PostgreSQL and Java
	$(PYTEST) tests/systemd

lint: venv ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: venv ## Let ruff write the code's layout and mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: venv ## Measure every goal of speed, three times (90 minutes); BENCH="--quick" or BENCH="--rounds 1 NAME …" for less
	$(BIN)/python -m benchmarks $(BENCH)

man: venv ## Write docs/man/ anew from the texts of the command line and the configuration
	$(BIN)/python -m outboxd.cli.manual docs/man

lock: venv ## Write constraints.txt anew from pyproject.toml (docs/decisions/0001-hashed-lock.md)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check pip-tools
	$(BIN)/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-header --no-annotate \
		--no-emit-index-url --no-emit-trusted-host --no-emit-find-links \
		--extra demo --extra test --output-file constraints.txt pyproject.toml
	@! grep -n '://' constraints.txt

clean: ## Remove what the other targets made
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .cache tests/kafka-broker/target
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
