# Everything lives in .venv; `make` alone says what there is.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed

.PHONY: help install demo test test-slow test-interpreters lint docs bench clean
.DEFAULT_GOAL := help

help:
	@echo "make demo       train FedPM on handwritten digits (embedded data), leave runs/demo"
	@echo "make test       the tests and the examples of docstrings, without what takes minutes"
	@echo "make test-slow  the tests that take minutes"
	@echo "make test-interpreters  runs by every other Python of this machine; installs torch for each"
	@echo "make lint       ruff, mypy, import contracts"
	@echo "make docs       the documentation, into site/; any link that leads nowhere is an error"
	@echo "make bench      bits against bounds, speed, overhead; writes benchmarks/results"

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -c constraints.txt -e ".[dev,docs]"
	touch $(INSTALLED)

demo: $(INSTALLED)
	$(BIN)/thinwire run experiments/fedpm/digits.toml --out runs/demo --force

test: $(INSTALLED)
	$(BIN)/pytest -n 2
	$(BIN)/pytest --doctest-modules src/thinwire

test-slow: $(INSTALLED)
	$(BIN)/pytest -n 2 -m slow

test-interpreters: $(INSTALLED)
	$(BIN)/python tests/interpreters/play.py

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks

clean:
	rm -rf .venv build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
