# Every target sets up .venv by itself when it is missing or older than what it was made from.
.PHONY: help install demo test test-all faults check bench transforms
.DEFAULT_GOAL := help

PYTHON ?= python3
# What `make bench DATA=dir` runs, and where its figures go.
NAME ?= all
JSON ?= runs/bench.json
# How many processes share the tests: one has those on Ray clusters, which wait for each other now and then.
PROCESSES ?= 3
BIN := .venv/bin
TEST = $(BIN)/python -m pytest -q -n $(PROCESSES) --no-loadscope-reorder --durations=20
READY := .venv/.installed
# Tools that look for a folder named after its package (mypy, import-linter) see the package through these links.
STAGE := build/staged
STAGED := $(wildcard *.py) py.typed cli models pipeline workers

help:
	@echo "make install | demo | test | test-all | faults | check | transforms | bench DATA=dir"

install: $(READY)

$(READY): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "expected Python 3.11 or newer, got no '$(PYTHON)'; install it, or run make PYTHON=/path/to/python" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; got = "%d.%d" % sys.version_info[:2]; sys.exit(sys.version_info < (3, 11) and "expected Python 3.11 or newer, got " + got + "; run make PYTHON=/path/to/python")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[demo,dev]'
	@touch $@

demo: $(READY)
	$(BIN)/lightwell demo --out runs/demo

test: $(READY)
	$(TEST) -m "not gpu and not slow"

test-all: $(READY)
	$(TEST) -m "not gpu"

faults: $(READY)
	$(BIN)/python -m pytest -q -m "fault and not gpu"

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	@rm -rf $(STAGE) && mkdir -p $(STAGE)/lightwell && ln -s $(addprefix ../../../,$(STAGED)) $(STAGE)/lightwell/
	cd $(STAGE) && ../../$(BIN)/mypy --config-file ../../pyproject.toml --cache-dir ../../.mypy_cache -p lightwell
	cd $(STAGE) && ../../$(BIN)/lint-imports --config ../../pyproject.toml --no-cache
	$(BIN)/python -m pytest -q tests/test_structure.py tests/test_packaging.py

transforms: $(READY)
	$(BIN)/python -m lightwell.pipeline.transform.dali.transforms_md > TRANSFORMS.md.new && mv TRANSFORMS.md.new TRANSFORMS.md

bench: $(READY)
	@test -n "$(DATA)" || { echo "bench: expected a folder with photos, got no DATA; run make bench DATA=dir" >&2; exit 2; }
	$(BIN)/lightwell bench $(NAME) --data "$(DATA)" --json $(JSON)
