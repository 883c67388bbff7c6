# Everything runs in .venv, which the first call sets up and later ones reuse.
PYTHON ?= python3
BIN := .venv/bin
PEERS := .venv-peers/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# Most of what is installed is never imported, so it is not compiled to bytecode in advance.
INSTALL := $(PIP) install --no-compile
# A file's tests share what they start, so they stay together.
PYTEST := $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 \
	--dist loadfile --no-loadscope-reorder

# Tests start hundreds of processes; without bytecode each would compile what it imports again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1|/' | \
		awk -F'|' '{ printf "  make %-14s %s\n", $$1, $$2 }'

.PHONY: demo
demo: .venv/.demo ## Watch loadwise route real requests to real servers, some of which fail
	@$(BIN)/loadwise demo

.PHONY: test
test: .venv/.dev ## Run every test: units, properties, threads, real servers, documents, types, wheel
	$(PYTEST)
	@$(MAKE) --no-print-directory --jobs 2 mypy pyright

# Those of the parts that are compiled; with TESTS=tests, all of them.
TESTS ?= tests/balancer tests/contracts tests/load tests/strategies tests/test_compiled.py

.PHONY: test-compiled
test-compiled: .compiled/.ready ## Run the tests of the hot path on its compiled form
	LOADWISE_COMPILE=1 PYTHONPATH=.compiled $(PYTEST) $(TESTS)

.PHONY: style
style: .venv/.dev ## Check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.PHONY: check
check: style mypy pyright ## Check style, formatting and types

.PHONY: mypy pyright
mypy pyright: .venv/.dev
	$(BIN)/$@

.PHONY: bench
bench: .venv/.dev ## Print what everything costs, how it grows and what its floor is (minutes)
	$(BIN)/python -m benchmarks

.PHONY: bench-quick
bench-quick: .venv/.dev ## The same, less thoroughly (a minute)
	$(BIN)/python -m benchmarks --quick

.PHONY: bench-peers
bench-peers: .venv-peers/.ready ## Compare with other libraries, installed into .venv-peers
	$(PEERS)/python -m benchmarks --peers

.PHONY: bench-compiled
bench-compiled: .compiled/.ready ## Print what compiling the hot path saves
	$(BIN)/python -m benchmarks.compiled .compiled

.PHONY: bench-docs
bench-docs: .venv/.dev ## Put the tables that bench and bench-peers printed into the documentation
	$(BIN)/python -m benchmarks.pages

.PHONY: proof
proof: .venv/.dev ## Set simulator and strategies against theory; write docs/proof.md (a minute)
	$(BIN)/python -m tests.proof

.PHONY: bad-days
bad-days: .venv/.dev ## Print what becomes of requests on bad days; put the tables into docs
	$(BIN)/python -m tests.bad_days

.PHONY: docs
docs: .venv/.dev ## Build the documentation into docs/_build
	$(BIN)/sphinx-build -W --keep-going -q docs docs/_build/html

.PHONY: versions
versions: .venv/.dev ## Run the tests on every Python found, 3.11 to 3.14
	$(BIN)/nox

.PHONY: clean
clean: ## Remove everything that was built or installed
	rm -rf .venv .venv-peers .compiled .nox .benchmarks build dist docs/_build .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "loadwise needs Python 3.11 or newer; say which: make PYTHON=/path/to/python3"; exit 1; }
	@echo "Setting up .venv (once) ..."
	@$(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }

# The package is installed in place, so a change to its sources needs no new installation.
.venv/.demo: .venv/bin/python pyproject.toml requirements/dev.txt
	@$(INSTALL) --constraint requirements/dev.txt --editable '.[cli]'
	@touch $@

.venv/.dev: .venv/bin/python pyproject.toml requirements/dev.txt
	@$(INSTALL) --requirement requirements/dev.txt --editable '.[cli]'
	@touch $@ .venv/.demo

.compiled/.ready: .venv/.dev hatch_build.py $(shell find src -name '*.py')
	@echo "Compiling into .compiled (a minute) ..."
	@rm -rf .compiled
	@LOADWISE_COMPILE=1 $(PIP) install --no-deps --no-build-isolation --target .compiled .
	@touch $@

# A peer that cannot be installed here is left out, and the comparison says so.
.venv-peers/.ready: .venv/bin/python pyproject.toml requirements/peers.txt
	@echo "Setting up .venv-peers (once) ..."
	@$(BIN)/python -m venv .venv-peers
	@$(PEERS)/python -m pip --disable-pip-version-check --quiet install \
		--requirement requirements/peers.txt || \
		while read -r pin; do \
			$(PEERS)/python -m pip --disable-pip-version-check --quiet install --no-deps "$$pin" \
				|| echo "left out: $$pin"; \
		done < requirements/peers.txt
	@$(PEERS)/python -m pip --disable-pip-version-check --quiet install --editable .
	@touch $@
