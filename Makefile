# Two commands do it all: `make run` starts the product, `make test` runs the tests. Paths are relative, so any directory will do.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
DATA := .data
STAMP := .venv/.installed
TEST_STAMP := .venv/.test-installed
export CALLIOPE_DATA_DIR ?= $(CURDIR)/$(DATA)

.PHONY: help run test check bench e2e lock clean

help:
	@echo "make run     install what is locked, fetch the local model and the IDE, start the product"
	@echo "make test    run the tests"
	@echo "make check   ruff and the strict type checker"
	@echo "make bench   measure start, memory, latency and cost per chunk, as ratios in one run"
	@echo "make e2e     real hub, real IDE, real browser"
	@echo "make lock    resolve the dependencies anew"
	@echo "make clean   remove the environment and the fetched data"

# The environment is made once per lock file; a second run costs a few file stamps.
$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; set PYTHON=python3.12 or so." >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "Python's venv module is missing (Debian: apt-get install python3-venv)." >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing what requirements.lock pins (about a minute the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

$(TEST_STAMP): $(STAMP) tests/requirements.lock
	@echo "installing what the tests need"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r tests/requirements.lock
	@touch $(TEST_STAMP)

# Neither the model nor the IDE is needed for the rest: what cannot be fetched is said, and the stack starts without it.
run: $(STAMP)
	@$(BIN)/calliope-agent models pull --quiet || true
	@$(BIN)/calliope-agent ide install >/dev/null || true
	@exec $(BIN)/calliope-agent launch

test: $(TEST_STAMP)
	@$(BIN)/calliope-agent models pull --quiet || true
	@$(BIN)/python -m pytest -n auto --dist loadgroup -m "not e2e and not image" $(ARGS)

check: $(TEST_STAMP)
	@$(BIN)/ruff check --output-format concise .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

bench: $(TEST_STAMP)
	@$(BIN)/python -m tests.bench $(ARGS)

e2e: $(TEST_STAMP)
	@PYTHON=$(BIN)/python tests/e2e/install
	@$(BIN)/python -m pytest -m e2e $(ARGS)

# --no-emit-index-url: the lock files name no registry's host; pip's own default is used.
lock:
	@command -v uv >/dev/null || { echo "uv is needed to resolve: python3 -m pip install uv" >&2; exit 1; }
	@uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --all-extras \
	  --custom-compile-command "make lock" pyproject.toml -o requirements.lock
	@uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url -c requirements.lock \
	  --custom-compile-command "make lock" tests/requirements.in -o tests/requirements.lock

clean:
	@rm -rf .venv $(DATA)
