# Every target does its own set-up: none needs another to have run before.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
UV_VERSION := 0.13.9

.DEFAULT_GOAL := help
.PHONY: help setup

help: ## what each target does
	@grep -hE '^[a-z][a-z-]*:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | expand -t 16

setup: $(STAMP) ## the environment with the `kompress` command, in .venv

$(STAMP): pyproject.toml requirements.lock
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/uv pip sync --quiet --allow-empty-requirements requirements.lock || exit 1
	VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/uv pip install --quiet --no-deps --editable . uv==$(UV_VERSION)
	touch $@

lock: ## resolve the dependencies anew (no addresses are written)
	VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 \
		--no-header --no-emit-index-url --quiet --upgrade --output-file requirements.lock
