# make demo | docs | test | check | clean | help. Each makes its own virtual environment in .venv from constraints.txt.
# An interpreter that is named (PYTHON=python3.13) has one of its own beside it, .venv-python3.13.
PYTHON ?= python3
VERSIONS := 3.11 3.12 3.13
VENV := $(if $(filter python3,$(PYTHON)),.venv,.venv-$(notdir $(PYTHON)))
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Processes that test side by side, each with 2 to 3 GB of memory at most. A file stays with one of them: its tests share
# what is set up once for all of them.
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest --numprocesses=$(WORKERS) --dist=loadfile

.PHONY: help demo docs test test-slow test-tools test-versions check format clean
.DEFAULT_GOAL := help

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

# The stamp makes the second run quick; a changed pyproject.toml or constraints.txt installs again.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "featherweight needs Python 3.11 or newer, found: $$($(PYTHON) --version 2>&1); try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "this Python has no venv module; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 2; }
	@echo "making $(VENV) (once; a few minutes, about 6 GB with torch)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(STAMP) ## both apps: synthetic data, a model trained, optimized and sealed, files scored (a few minutes)
	@VENV=$(VENV) ./demo.sh

docs: $(STAMP) ## the documentation as a site, in docs/_build; a broken link or a missing reference fails
	@$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet -b dirhtml docs docs/_build
	@echo "open docs/_build/index.html"

test: $(STAMP) ## all tests
	@$(PYTEST)

test-slow: $(STAMP) ## the tests that take minutes each, which `test` leaves out
	@$(BIN)/python -m pytest -m slow

# One after the other: each needs the whole machine. A version that is not installed is said, and is no failure.
test-versions: ## `test` with each of these Pythons that is installed here, each in an environment of its own
	@ran=; failed=; for version in $(VERSIONS); do \
		if ! python$$version -c '' 2>/dev/null; then echo "test-versions: python$$version is not installed here"; \
		elif $(MAKE) test PYTHON=python$$version VENV=.venv-python$$version; then ran="$$ran $$version"; \
		else ran="$$ran $$version"; failed="$$failed $$version"; fi; \
	done; \
	echo "test-versions: ran with:$${ran:- none}; failed with:$${failed:- none}"; [ -n "$$ran" ] && [ -z "$$failed" ]

test-tools: ## what some tests use beyond pip, where it can be had: Apache Kafka, Java, Maven, strace, qemu-user, Chromium, axe-core
	@tests/tools/fetch.sh

check: $(STAMP) ## what CI and a reviewer ask for: lint, format, types, layers, tests
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(PYTEST)

format: $(STAMP) ## let ruff format and fix what it can
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

clean: ## remove the environments, caches and what runs left (data/cache and .tools stay)
	@rm -rf $(VENV) .venv .venv-python* runs dist build docs/_build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -not -path './.venv*' -prune -exec rm -rf {} +
