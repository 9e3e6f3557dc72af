# Two commands do it all: `make run` starts the product, `make test` runs the tests. Paths are relative, so any directory will do.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
DATA := .data
STAMP := .venv/.installed
TEST_STAMP := .venv/.test-installed
export CALLIOPE_DATA_DIR ?= $(CURDIR)/$(DATA)

.PHONY: help run test check bench e2e lock clean image image-test

help:
	@echo "make run     install what is locked, fetch the local model and the IDE, start the product"
	@echo "make test    run the tests"
	@echo "make check   ruff and the strict type checker"
	@echo "make bench   measure start, memory, latency and cost per chunk, as ratios in one run"
	@echo "make e2e     real hub, real IDE, real browser"
	@echo "make image   build the container image (docker or podman); IMAGE names it, BUILD_ARGS adds options"
	@echo "make image-test  build it with podman and run it hard: users, limits, stops, hubs"
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

# BUILD_ARGS="--build-arg LOCAL_MODEL=true --secret id=ca,src=ca.pem" and the like: container/README.md lists them.
IMAGE ?= calliopeai/waiide:latest
CONTAINER_ENGINE ?= $(shell command -v docker || command -v podman)
image:
	@test -n "$(CONTAINER_ENGINE)" || { echo "docker or podman is needed to build the image" >&2; exit 1; }
	@$(CONTAINER_ENGINE) build $(if $(findstring podman,$(CONTAINER_ENGINE)),--format docker --ignorefile container/Dockerfile.dockerignore) \
	  -f container/Dockerfile -t $(IMAGE) --build-arg REVISION=$$(git rev-parse --short HEAD 2>/dev/null || echo unknown) \
	  --build-arg CREATED=$$(date -u +%Y-%m-%dT%H:%M:%SZ) $(BUILD_ARGS) .

IMAGE_STAMP := .venv/.image-test-installed
$(IMAGE_STAMP): $(TEST_STAMP) tests/image/requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r tests/image/requirements.lock
	@touch $(IMAGE_STAMP)

image-test: $(IMAGE_STAMP)
	@$(BIN)/python -m pytest -m image $(ARGS)

# --no-emit-index-url: the lock files name no registry's host; pip's own default is used.
lock:
	@command -v uv >/dev/null || { echo "uv is needed to resolve: python3 -m pip install uv" >&2; exit 1; }
	@uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --all-extras \
	  --custom-compile-command "make lock" pyproject.toml -o requirements.lock
	@uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url -c requirements.lock \
	  --custom-compile-command "make lock" tests/requirements.in -o tests/requirements.lock
	@uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url -c requirements.lock \
	  --custom-compile-command "make lock" container/jupyterlab.in -o container/jupyterlab.lock
	@uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url -c requirements.lock \
	  -c tests/requirements.lock --custom-compile-command "make lock" tests/image/requirements.in -o tests/image/requirements.lock
	@uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --custom-compile-command "make lock" tests/e2e/oldest_hub/requirements.in -o tests/e2e/oldest_hub/requirements.lock
	@uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url -c container/jupyterlab.lock \
	  -c tests/requirements.lock --custom-compile-command "make lock" tests/e2e/person/requirements.in -o tests/e2e/person/requirements.lock

clean:
	@rm -rf .venv $(DATA)
