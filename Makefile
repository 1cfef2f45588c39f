# Every target does its own set-up: none needs another to have run before.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
UV_VERSION := 0.13.9
# Compiled once, here: where PYTHONDONTWRITEBYTECODE is set (CI images do) each of the tests' many processes would compile torch anew, 10 s each.
UV := VIRTUAL_ENV=$(abspath $(VENV)) UV_COMPILE_BYTECODE=1 $(BIN)/uv
# One thread a process: several processes with several threads each on few cores spend their time waiting for each other.
# With `-n 2` two processes share the tests; each has its own session fixtures. Tests on real nodes are not shared out: those exist once.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help setup lock crds run test lint test-unit test-gpu test-cluster test-e2e test-docs perf perf-engine perf-gpu

help: ## what each target does
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sort | sed -E 's/^([a-z0-9-]+):.*## /\1\t/' | expand -t 16

setup: $(STAMP) ## the environment with the `kompress` command, in .venv

$(STAMP): pyproject.toml requirements.lock
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	$(UV) pip install --quiet --requirement requirements.lock
	$(UV) pip install --quiet --no-deps --editable . uv==$(UV_VERSION)
	touch $@

lock: setup ## resolve the dependencies anew, into requirements.lock
	$(UV) pip compile pyproject.toml --extra dev --universal --python-version 3.11 \
		--no-header --no-emit-index-url --quiet --upgrade --output-file requirements.lock

crds: setup ## the CRDs and the reference pages, from the models of the API and the modules of the methods
	$(BIN)/python -m kompress_api.crd
	$(BIN)/python -m kompress_api.reference
	$(BIN)/python -m kompress_jobs.reference

run: setup ## the example on this machine: fine-tune, distill, prune, export; MLflow on sqlite
	$(BIN)/kompress run examples/digits.yaml

# The docs' demo needs this machine's own nodes, so that all does, whatever cluster the user works with.
test test-docs: export KUBECONFIG :=

test: testcluster-unclaimed lint test-unit test-cluster test-e2e test-docs ## everything; needs root

lint: setup ## style, types, and the arrows between the packages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test-unit: setup ## a quarter of an hour on two cores, no servers; wants Debian's espeak-ng (installed for root)
	$(TESTCLUSTER) install-packages espeak-ng
	$(PYTEST) tests/unit -n 2 --dist worksteal

test-gpu: setup ## the engine's tests on this machine's GPU, with those that only a GPU can show
	$(PYTEST) tests/unit/jobs/engine -n 4 --dist worksteal

test-cluster: testcluster ## against a real control plane and a real S3 server
	$(PYTEST) tests/cluster -n 2 --dist loadfile

test-e2e: testcluster-unclaimed testcluster ## real nodes, pods, torchrun, MLflow and S3; needs root
	$(PYTEST) tests/e2e

test-docs: testcluster-unclaimed testcluster ## the docs, executed: `make demo`, `make run`, every command and manifest of every page; needs root
	$(PYTEST) tests/docs

perf: testcluster-unclaimed testcluster ## speed and memory as ratios to peers, into build/perf (an hour and more on a quiet machine; needs root)
	PYTHONPATH=tests $(BIN)/python -m perf path

perf-engine: setup ## methods beside the best tool for each, from PyPI into build/perf/peers; hours. PARTS="stalls speed" measures some
	$(TESTCLUSTER) install-packages espeak-ng
	PYTHONPATH=tests $(BIN)/python -m perf $(if $(PARTS),$(PARTS:%=engine.%),engine)

perf-gpu: setup ## training and serving on this machine's GPU, beside the same by hand, into build/perf
	PYTHONPATH=tests $(BIN)/python -m perf gpu

include tests/testcluster/testcluster.mk
-include examples/demo/demo.mk
