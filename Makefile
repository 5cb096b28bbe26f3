PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := out/demo
export COMFYUI_PATH ?= $(HOME)/comfy/ComfyUI
COMFYUI_PYTHON ?= $(firstword $(wildcard $(COMFYUI_PATH)/.venv/bin/python $(COMFYUI_PATH)/venv/bin/python) $(PYTHON))
export COMFYUI_PYTHON

.DEFAULT_GOAL := help
.PHONY: help demo test test-host comfy lint bench clean

help:
	@echo "make demo        restore a picture with half of it hidden, eight times; pictures in $(DEMO)"
	@echo "make test        run the tests with coverage of vipaint_ops"
	@echo "make test-host   run the nodes in the ComfyUI at COMFYUI_PATH ($(COMFYUI_PATH))"
	@echo "make comfy       start that ComfyUI with this pack linked in; COMFYUI_ARGS='--cpu' and the like are passed on"
	@echo "make lint        ruff, mypy and import-linter"
	@echo "make bench       run every benchmark, one after the other"
	@echo "make clean       remove what the other targets made, the environment too"

demo: $(VENV)/.installed
	$(BIN)/vipaint demo --out $(DEMO) --overwrite
	@echo "The pictures are in $(CURDIR)/$(DEMO)"

test: $(VENV)/.installed
	$(BIN)/python -m pytest --cov --cov-report=term --cov-fail-under=90 --ignore=tests/host

test-host: $(VENV)/.installed
	$(BIN)/python -m pytest tests/host

comfy:
	@test -f "$(COMFYUI_PATH)/main.py" || { echo "no ComfyUI at $(COMFYUI_PATH): set COMFYUI_PATH to its folder"; exit 2; }
	ln -sfn "$(CURDIR)" "$(COMFYUI_PATH)/custom_nodes/vipaint"
	$(COMFYUI_PYTHON) -m pip install --quiet -r requirements.txt
	cd "$(COMFYUI_PATH)" && $(COMFYUI_PYTHON) main.py $(COMFYUI_ARGS)

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.installed
	@set -e; for file in $$(grep -l __main__ benchmarks/*.py); do \
		echo "== $$file"; $(BIN)/python -m benchmarks.$$(basename $$file .py); done

clean:
	rm -rf $(VENV) out *.egg-info .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,bench]'
	@touch $@
