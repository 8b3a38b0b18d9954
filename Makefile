# Needs Python 3.11 or 3.12 with venv, gcc/g++ and make; everything else is installed into .venv.
#
#   make demo      the whole path on embedded data, from corpora to the report
#   make test      what has to pass before a change is merged
#
# PYTHON=/path/to/python chooses another interpreter. All targets can be run again cheaply.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
REQUIREMENTS := setup.cfg pyproject.toml constraints.txt

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help install demo test check lint types imports ops pytest format schema clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 13) else \
		f"error: {sys.executable} is Python {v[0]}.{v[1]}; expected 3.11 or 3.12. Name one: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

# A stamp is newer than the files below as long as what they ask for is installed.
$(VENV)/dev.stamp: $(REQUIREMENTS) | $(BIN)/python
	$(PIP) -e '.[dev]'
	@touch $@

$(VENV)/demo.stamp: $(REQUIREMENTS) | $(BIN)/python
	$(PIP) -e '.[demo]'
	@touch $@

install: $(VENV)/dev.stamp ## .venv with everything that the tests need

demo: $(VENV)/demo.stamp ops ## convert, train, distil, export and evaluate on embedded data
	$(BIN)/optical-scale demo --output runs/demo

test: check ## style, types, import contracts and all tests

check: lint types imports pytest

lint: $(VENV)/dev.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/dev.stamp
	$(BIN)/mypy

imports: $(VENV)/dev.stamp
	$(BIN)/lint-imports

# Compiled once into torch's cache, so that tests and training processes do not wait for one another. Without a
# compiler training still works, over gloo alone; doctor then names what is missing.
ops:
	-$(BIN)/optical-scale doctor --build-ops

# One thread per process: the tests start several processes, and torch would start a thread per core in each. The third
# process works on two cores while others wait for what they started. What starts processes of its own runs one after the
# other: exchanging processes spin, so more than cores slow each other.
pytest: export OMP_NUM_THREADS ?= 1
pytest: $(VENV)/dev.stamp ops
	$(BIN)/python -m pytest -n 3 --dist loadgroup --ignore tests/distributed --ignore tests/end_to_end
	$(BIN)/python -m pytest tests/distributed tests/end_to_end

format: $(VENV)/dev.stamp ## rewrite the code in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

schema: $(VENV)/dev.stamp ## write docs/config.schema.json
	$(BIN)/python -m tests.architecture.config_schema docs/config.schema.json

clean: ## remove .venv, caches and build results; runs/ stays
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
