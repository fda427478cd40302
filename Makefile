# Two commands for a fresh machine: `make demo` and `make test`. Each installs what it needs, once, into $(VENV).
VENV ?= $(or $(VIRTUAL_ENV),.venv)
export VENV
BIN := $(VENV)/bin
OUT ?= demo
PYTEST := $(BIN)/python -m pytest -n auto --dist loadfile

.PHONY: install demo demo-full test test-quick test-all lint format tables docs

install:
	@scripts/install.sh

demo: install ## images to tables on a CPU, in minutes
	@$(BIN)/pixbench suite configs/suites/demo.yaml --out $(OUT)

demo-full: install ## a backbone of each method under eight protocols: one to three hours
	@$(BIN)/pixbench suite configs/suites/demo_full.yaml --out $(OUT)_full

test: install ## the default tests: CPU, no network
	@$(PYTEST)

test-quick: install ## the inner loop: no frameworks, nothing slow
	@$(PYTEST) -m "not frameworks and not slow and not browser and not e2e and not gpu"

test-all: install ## with the long end-to-end runs
	@$(PYTEST) -m "not gpu"

lint: install ## style, types, spelling, and the docs built strictly
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/codespell
	@$(BIN)/python scripts/generate_docs.py --check && NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

format: install
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .

tables: install ## the tables in the docs that the program prints
	@$(BIN)/python scripts/generate_docs.py

docs: tables ## the site, at http://127.0.0.1:8000 while the command runs
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve
