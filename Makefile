# Every target sets up what it needs: a virtual environment in .venv, made anew when pyproject.toml changes.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
PARAMGEN := OMP_NUM_THREADS=1 $(BIN)/paramgen

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow test-browser fuzz lint bench clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) ## Make .venv and install paramgen with its development tools
$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

demo: $(STAMP) ## The main job on real digits: collect, fit, generate, evaluate; see runs/demo/report.html
	rm -rf runs/demo
	$(PARAMGEN) compare --config digits --out runs/demo

test: $(STAMP) ## The tests, with coverage (under 5 minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --cov --cov-report=term:skip-covered $(ARGS)

test-slow: $(STAMP) ## The slow tests too
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "slow or not slow" $(ARGS)

test-browser: $(STAMP) ## The report in a real headless Chromium (as root on Debian it installs one)
	@command -v chromium >/dev/null || [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null || { apt-get update -qq && apt-get install -y -qq chromium; }
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/test_browser.py -rs $(ARGS)

fuzz: $(STAMP) ## 100,000 damaged files in all, spread over every kind that is read (a few minutes)
	OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz.py --total 100000 $(ARGS)

lint: $(STAMP) ## ruff, mypy, and the one-way imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP) ## Measure speed against the published code's figures; writes benchmarks/results/
	$(BIN)/python benchmarks/pdiff_speed.py
	$(BIN)/python benchmarks/rpg_speed.py

clean: ## Remove what the targets made
	rm -rf $(VENV) runs .pytest_cache .ruff_cache .mypy_cache .coverage htmlcov dist
