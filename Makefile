# What a fresh machine needs beside this file: Python 3.11, 3.12 or 3.13, make, and a package index.

RECIPE ?= notebook
WORKERS ?= 2
STORAGE ?= storage
TRAIN_FLAGS ?=
TEST_FLAGS ?=
LOCK_FLAGS ?=
SERVE_FLAGS ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --quiet --disable-pip-version-check
BENCHMARKS := train_throughput fast startup fault_cost engines score split serve scaling scaling_inference corruptions \
  robustness accuracy

SUITABLE := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHONS := python3 python3.13 python3.12 python3.11
PYTHON ?= $(firstword $(foreach name,$(PYTHONS),$(shell $(name) -c "$(SUITABLE)" 2>/dev/null && echo $(name))) python3)

DATA := $(firstword $(wildcard data/mnist ../shared/mnist))
ifneq ($(DATA),)
export MNIST_DATA_DIR ?= $(abspath $(DATA))
endif

.DELETE_ON_ERROR:
.PHONY: help setup setup-node train serve demo test test-cluster test-faults test-unit coverage lint bench lock clean

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' Makefile | while IFS='|' read -r name text; do \
	  printf '  make %-12s %s\n' "$$name" "$$text"; done

setup: $(VENV)/dev.stamp ## make .venv with everything that development needs

setup-node: $(VENV)/runtime.stamp ## make .venv with what a node of a cluster needs

train: $(VENV)/runtime.stamp ## train, evaluate and publish a model (RECIPE, WORKERS, STORAGE, TRAIN_FLAGS)
	@dataset=mnist; \
	test -n "$$MNIST_DATA_DIR" || $(BIN)/mnist data fetch mnist || { dataset=uci-digits; echo "WARNING: no MNIST here and none to download:" \
	  "training on the embedded uci-digits instead, and this result is marked as theirs" >&2; }; \
	$(BIN)/mnist train --dataset $$dataset --recipe $(RECIPE) --workers $(WORKERS) --storage $(STORAGE) $(TRAIN_FLAGS)

serve: $(VENV)/runtime.stamp ## serve the current model until Ctrl-C (STORAGE, SERVE_FLAGS)
	$(BIN)/mnist serve --storage $(STORAGE) $(SERVE_FLAGS)

demo: $(VENV)/runtime.stamp ## train briefly, score, serve, ask in every protocol, stop: two minutes
	@dataset=mnist; test -n "$$MNIST_DATA_DIR" || $(BIN)/mnist data fetch mnist || dataset=uci-digits; \
	$(BIN)/python examples/demo.py --dataset $$dataset

test: $(VENV)/dev.stamp ## run every test that one machine can run (TEST_FLAGS)
	$(BIN)/pytest -m "not cluster" $(TEST_FLAGS)

test-cluster: $(VENV)/dev.stamp ## bring up a cluster of three hosts, here, and test on it (root; ip, sshd, rsync)
	$(BIN)/pytest tests/cluster -m "not faults" $(TEST_FLAGS)

test-faults: $(VENV)/dev.stamp ## cut power and network of those hosts while they work
	$(BIN)/pytest tests/cluster -m faults --verbose $(TEST_FLAGS)

test-unit: $(VENV)/dev.stamp ## run the unit tests only
	$(BIN)/pytest tests/unit $(TEST_FLAGS)

coverage: $(VENV)/dev.stamp ## run every test and say which lines and branches none reaches
	$(BIN)/pytest -m "not cluster" --cov --cov-report=term-missing $(TEST_FLAGS)

lint: $(VENV)/dev.stamp ## check style, format and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: $(VENV)/dev.stamp ## run the benchmarks, one after the other; the last ones judge the model of make train
	@for name in $(BENCHMARKS); do $(BIN)/python benchmarks/$$name.py || exit 1; done

lock: $(VENV)/dev.stamp ## choose and pin the versions of all dependencies (LOCK_FLAGS=--upgrade: the newest)
	$(compile) pyproject.toml --extra dev --output-file requirements-dev.lock
	$(compile) pyproject.toml --constraint requirements-dev.lock --output-file requirements.lock
	echo uv | $(compile) - --output-file requirements-uv.lock

clean: ## remove .venv and caches; data and storage stay
	rm -rf $(VENV) build dist htmlcov .coverage .*_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

compile = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-annotate --no-header $(LOCK_FLAGS)

# uv needs a minute where pip needs three; where uv reaches no index, pip may, which has settings of its own. Compiled at
# once, because the first Ray node would time out while all its processes compile.
define install
	@echo "installing $(1) into $(VENV)"
	@$(PIP) install --require-hashes -r requirements-uv.lock \
	  && $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r $(1) \
	  || $(PIP) install --require-hashes -r $(1)
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@
endef

$(VENV)/dev.stamp: requirements-dev.lock requirements-uv.lock pyproject.toml | $(VENV)/created.stamp
	$(call install,requirements-dev.lock)

$(VENV)/runtime.stamp: requirements.lock requirements-uv.lock pyproject.toml | $(VENV)/created.stamp
	$(call install,requirements.lock)

$(VENV)/created.stamp:
	@$(PYTHON) -c "$(SUITABLE)" || { echo "error: found $$($(PYTHON) --version 2>&1), expected Python 3.11, 3.12 or" \
	  "3.13; install one, or name it: make PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@touch $@
