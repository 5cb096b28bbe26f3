PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := out/demo

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench clean

help:
	@echo "make demo   restore a picture with half of it hidden, eight times; pictures in $(DEMO)"
	@echo "make test   run the tests with coverage of vipaint_ops"
	@echo "make lint   ruff and mypy"
	@echo "make bench  run every benchmark, one after the other"
	@echo "make clean  remove what the other targets made, the environment too"

demo: $(VENV)/.installed
	$(BIN)/vipaint demo --out $(DEMO) --overwrite
	@echo "The pictures are in $(CURDIR)/$(DEMO)"

test: $(VENV)/.installed
	$(BIN)/python -m pytest --cov --cov-report=term --cov-fail-under=90

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(VENV)/.installed
	@set -e; for file in $$(grep -l __main__ benchmarks/*.py); do \
		echo "== $$file"; $(BIN)/python -m benchmarks.$$(basename $$file .py); done

clean:
	rm -rf $(VENV) out *.egg-info .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,bench]'
	@touch $@
