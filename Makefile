# Parley: `make` prints this help; `make demo` shows it, `make test` proves it.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Tests wait a good part of their time, for leases, pauses and deadlines: three at once keep two cores busy.
WORKERS ?= 3
PROTOS := $(shell find protos/parley -name '*.proto' | sort)
SOURCES := libs services tests tools

.PHONY: help
help: ## Show this help
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##@ First
.PHONY: demo
demo: $(VENV)/.run ## Watch an exchange: a campaign, consents, sealed releases, a withdrawal, receipts
	@$(BIN)/parley demo

.PHONY: test
test: $(VENV)/.dev ## Prove it: everything but the slow tests, on real servers
	@$(BIN)/python -m pytest -m "not slow" -n $(WORKERS) --dist loadfile --no-loadscope-reorder

##@ Setting up
.PHONY: setup
setup: $(VENV)/.dev ## Make the virtual environment with the development tools

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Parley needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.run: requirements/run.txt pyproject.toml | $(VENV)/bin/python
	@echo "Installing what Parley runs on into $(VENV) (once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/run.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index -e .
	@touch $@

$(VENV)/.dev: requirements/dev.txt pyproject.toml | $(VENV)/bin/python
	@echo "Installing the development tools into $(VENV) (once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index -e .
	@touch $(VENV)/.run $@

.PHONY: requirements
requirements: $(VENV)/.dev ## Pin every dependency with its hashes, from pyproject.toml
	@$(BIN)/python -m pip install --quiet uv
	@$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes pyproject.toml --all-extras --group build -o requirements/run.txt
	@$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes pyproject.toml --all-extras --group build --group dev -c requirements/run.txt -o requirements/dev.txt

##@ Checking
.PHONY: check
check: lint types imports proto-check ## Everything static

.PHONY: lint
lint: $(VENV)/.dev ## ruff and buf
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/ruff format --check $(SOURCES)
	@$(BIN)/buf lint protos
	@$(BIN)/buf format protos --diff --exit-code

.PHONY: types
types: $(VENV)/.dev ## mypy, strict
	@$(BIN)/mypy

.PHONY: imports
imports: $(VENV)/.dev ## Services independent, one importer of nacl, domains without I/O
	@$(BIN)/lint-imports --no-logo

.PHONY: unit
unit: $(VENV)/.dev ## The quick loop: decisions only, no server
	@$(BIN)/python -m pytest tests/unit -q

.PHONY: test-all
test-all: $(VENV)/.dev ## The slow tests too
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: bench
bench: $(VENV)/.dev ## What an exchange, a withdrawal and a leaf cost, beside a bare echo: a table, and build/bench.json
	@$(BIN)/python -m tests.bench.run $(ARGS)

.PHONY: profile
profile: $(VENV)/.dev ## Where the time of one exchange goes: a table and a chart
	@$(BIN)/python -m tests.bench.profile $(ARGS)

##@ Working on it
.PHONY: fmt
fmt: $(VENV)/.dev ## Format Python and protos
	@$(BIN)/ruff check --fix $(SOURCES)
	@$(BIN)/ruff format $(SOURCES)
	@$(BIN)/buf format protos -w

protoc = $(BIN)/python -m grpc_tools.protoc -I protos --python_out=$(1) --grpc_python_out=$(1) \
	--plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy --plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc \
	--mypy_out=quiet:$(1) --mypy_grpc_out=quiet,only_async:$(1)

.PHONY: proto
proto: $(VENV)/.dev ## Generate libs/parley from protos
	@find libs/parley -name '*_pb2*' -delete
	@$(call protoc,libs) $(PROTOS)
	@$(call protoc,.) -I . tests/support/echo.proto
	@find libs/parley -name '*_pb2_grpc.py*' -path '*common*' -delete
	@find libs/parley -name '*_events_pb2_grpc.py*' -delete

.PHONY: proto-check
proto-check: proto ## Generated code is what the protos say
	@git diff --exit-code --stat -- libs/parley tests/support

.PHONY: docs
docs: $(VENV)/.dev ## Write the generated pages of docs
	@$(BIN)/python -m tools.docs

.PHONY: up
up: $(VENV)/.run ## Run Parley here, all in one process
	@$(BIN)/parley up

.PHONY: doctor
doctor: $(VENV)/.run ## Say what is wrong and how to mend it
	@$(BIN)/parley doctor

.PHONY: clean
clean: ## Remove what was built; keep the virtual environment
	@rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
