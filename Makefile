# Every target sets up what it needs. PIP_* variables reach pip untouched; PYTHON=... chooses the interpreter.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
WORKERS ?= 2
STUDY  ?= palp_vs_ti_db
ARGS   ?=
# More threads than free cores make small networks many times slower; parallelism comes from processes.
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow test-gpu lint bench study clean

help: ## what can be made
	@echo "PALP Lab"; echo
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{ printf "  make %-10s %s\n", $$1, $$2 }'
	@echo; echo "Then: $(BIN)/palp-lab --help"

setup: $(READY) ## a virtual environment in .venv with everything in it (once)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "PALP Lab needs Python 3.11 or newer: make setup PYTHON=python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,joblib,slurm]"
	@touch $@

demo: $(READY) ## learn one subject with two methods, draw the front; a few minutes, prints where the pictures are
	$(BIN)/palp-lab run -m study=quickstart $(ARGS)

test: $(READY) ## the fast tests, offline (at most 10 minutes)
	$(BIN)/python -m pytest -n $(WORKERS) -q -m "not slow and not gpu and not bench" $(ARGS)

test-slow: $(READY) ## faults, launchers, true architectures, packaging (at most 20 minutes)
	$(BIN)/python -m pytest -n $(WORKERS) -q -m "slow and not gpu" $(ARGS)

test-gpu: $(READY) ## what needs a CUDA device: the same losses and pictures as on the CPU, up to rounding
	$(BIN)/python -m pytest -q -m gpu $(ARGS)

lint: $(READY) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY) ## seconds per step, picture and configuration; memory and time on the true architectures
	$(BIN)/python -m pytest -q -s -m bench $(ARGS)

study: $(READY) ## the study of experiments/palp_vs_ti_db; runs only the cells that are missing, writes its tables (STUDY=... for another)
	$(BIN)/palp-lab run -m study=$(STUDY) $(ARGS)
	for ledger in experiments/*/results.jsonl; do script=$${ledger%results.jsonl}tables.py; \
	  test ! -e $$script || $(BIN)/python $$script || exit 1; done

clean: ## remove the environment and caches; results in outputs/ stay
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache
	find palp_lab tests -name __pycache__ -type d -prune -exec rm -rf {} +
