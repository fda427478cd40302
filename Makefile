# Two commands for a fresh machine: `make demo` and `make test`. Each installs what it needs, once, into $(VENV).
VENV ?= $(or $(VIRTUAL_ENV),.venv)
export VENV
BIN := $(VENV)/bin
OUT ?= demo

.PHONY: install demo test test-all lint format

install:
	@scripts/install.sh

demo: install ## images to tables on a CPU, in minutes
	@$(BIN)/pixbench suite configs/suites/demo.yaml --out $(OUT)

test: install ## the default tests: CPU, no network
	@$(BIN)/python -m pytest

test-all: install ## with the long end-to-end runs
	@$(BIN)/python -m pytest -m "not gpu"

lint: install
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

format: install
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .
