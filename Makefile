# Every target installs what it needs in a virtual environment, .venv, which is rebuilt when pyproject.toml changes.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
PARAMGEN := OMP_NUM_THREADS=1 $(BIN)/paramgen

.DEFAULT_GOAL := help
.PHONY: help install demo test coverage test-slow test-docs test-browser fuzz lint docs dist release-generators release bench clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) ## Make .venv and install paramgen with its development tools
$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

demo: $(STAMP) ## Run the demo on real digits: collect, fit, sample, evaluate; see runs/demo/report.html
	rm -rf runs/demo
	$(PARAMGEN) compare --config digits --out runs/demo

test: $(STAMP) ## Run the tests on every core (under 6 minutes on two)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile $(ARGS)

coverage: $(STAMP) ## Run the tests and show the lines that no test reaches (half as long again)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --cov --cov-report=term:skip-covered $(ARGS)

test-slow: $(STAMP) ## Run all tests, including slow ones
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "slow or not slow" $(ARGS)

test-docs: $(STAMP) ## Run every command and Python block of the documentation, comparisons too (about 10 minutes of CPU)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto -m "slow or not slow" tests/test_docs_run.py $(ARGS)

test-browser: $(STAMP) ## Test the report in headless Chromium (installs it when root on Debian)
	@command -v chromium >/dev/null || [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null || { apt-get update -qq && apt-get install -y -qq chromium; }
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/test_browser.py -rs $(ARGS)

fuzz: $(STAMP) ## Read 100,000 damaged files of all formats (a few minutes)
	OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz.py --total 100000 $(ARGS)

lint: $(STAMP) ## Run ruff, mypy and the import contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

dist: $(STAMP) ## Build sdist and wheel in dist/, and try each in an environment of its own
	rm -f dist/*.whl dist/*.tar.gz
	$(BIN)/python -m build --outdir dist
	OMP_NUM_THREADS=1 $(BIN)/python tests/try_wheel.py dist

release-generators: $(STAMP) ## Fit three generators of digits and write them to dist/generators/ (about 8 minutes)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/release_generators.py --out dist/generators

release: dist release-generators ## Make all files of a release in dist/

docs: $(STAMP) ## Build the documentation's site in runs/site and check every link
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

bench: $(STAMP) ## Measure speed against the published code's figures; writes benchmarks/results/
	$(BIN)/python benchmarks/pdiff_speed.py
	$(BIN)/python benchmarks/rpg_speed.py

clean: ## Remove generated files
	rm -rf $(VENV) runs .pytest_cache .ruff_cache .mypy_cache .coverage htmlcov dist
