VENV := .venv
ifeq ($(OS),Windows_NT)
PYTHON ?= python
BIN := $(VENV)/Scripts
else
PYTHON ?= python3
BIN := $(VENV)/bin
endif
PYTEST = $(BIN)/python -m pytest --numprocesses auto --ignore=tests/host --ignore=tests/frontend
DEMO := out/demo
PACKAGE := out/package
export COMFYUI_PATH ?= $(HOME)/comfy/ComfyUI
COMFYUI_PYTHON ?= $(firstword $(wildcard $(COMFYUI_PATH)/.venv/bin/python $(COMFYUI_PATH)/venv/bin/python) $(PYTHON))
export COMFYUI_PYTHON

.DEFAULT_GOAL := help
.PHONY: help demo test coverage test-host test-frontend fuzz comfy lint ruff format-check mypy lint-imports bench package icon clean

help:
	@echo "make demo        restore a picture with half of it hidden, eight times; pictures in $(DEMO)"
	@echo "make test        run the tests of the library and the node files"
	@echo "make coverage    the same, with the coverage of vipaint_ops, which takes twice the time"
	@echo "make test-host   run the nodes in the ComfyUI at COMFYUI_PATH ($(COMFYUI_PATH))"
	@echo "make test-frontend  open templates, help pages and blueprints in that ComfyUI's frontend, in Chromium"
	@echo "make fuzz        try random prompts, interrupts, files and command lines in that ComfyUI, for hours; see docs/fuzz.md"
	@echo "make comfy       start that ComfyUI with this pack linked in; COMFYUI_ARGS='--cpu' and the like are passed on"
	@echo "make lint        ruff, mypy and import-linter"
	@echo "make bench       run every benchmark, one after the other"
	@echo "make package     build the wheel and the source distribution, and list their files; the result is in $(PACKAGE)"
	@echo "make icon        draw docs/images/icon.png and banner.png"
	@echo "make clean       remove what the other targets made, the environment too"

demo: $(VENV)/.installed
	$(BIN)/vipaint demo --out $(DEMO) --overwrite
	@echo "The pictures are in $(CURDIR)/$(DEMO)"

# The tensors of the tests are small: one thread for each of several processes is faster than several threads.
test coverage: export OMP_NUM_THREADS = 1
test: $(VENV)/.installed
	$(PYTEST)

coverage: $(VENV)/.installed
	$(PYTEST) --cov --cov-report=term --cov-fail-under=90

test-host: $(VENV)/.installed
	$(BIN)/python -m pytest tests/host

test-frontend: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[frontend]'
	$(BIN)/python -m pytest tests/frontend

fuzz: export OMP_NUM_THREADS = 1
fuzz: $(VENV)/.installed
	$(BIN)/python -m tests.fuzz $(FUZZ_ARGS)

comfy:
	@test -f "$(COMFYUI_PATH)/main.py" || { echo "no ComfyUI at $(COMFYUI_PATH): set COMFYUI_PATH to its folder"; exit 2; }
	ln -sfn "$(CURDIR)" "$(COMFYUI_PATH)/custom_nodes/vipaint"
	$(COMFYUI_PYTHON) -m pip install --quiet -r requirements.txt
	cd "$(COMFYUI_PATH)" && $(COMFYUI_PYTHON) main.py $(COMFYUI_ARGS)

lint: ruff format-check mypy lint-imports

ruff: $(VENV)/.installed
	$(BIN)/ruff check .

format-check: $(VENV)/.installed
	$(BIN)/ruff format --check .

mypy: $(VENV)/.installed
	$(BIN)/mypy

lint-imports: $(VENV)/.installed
	$(BIN)/lint-imports

bench: $(VENV)/.installed
	@set -e; for file in $$(grep -l __main__ benchmarks/*.py); do \
		echo "== $$file"; $(BIN)/python -m benchmarks.$$(basename $$file .py); done

# setuptools would copy modules that no longer exist from an old build folder.
package: $(VENV)/.installed
	rm -rf build $(PACKAGE)
	$(BIN)/python -m build --outdir $(PACKAGE) . > /dev/null
	$(BIN)/python -m tools.package_files $(PACKAGE)

icon: $(VENV)/.installed
	$(BIN)/python -m tools.make_icon

clean:
	rm -rf $(VENV) out build *.egg-info .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,bench]'
	@touch $@
