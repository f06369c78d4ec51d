# One environment in .venv; `make help` lists what there is.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-s3 containers check format openapi clean

help: ## list the commands
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | awk -F'\t' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(STAMP) ## make .venv with everything in it

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo "Python 3.11 or newer is missing; install python3, or give PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "Python's venv module is missing; install it: apt-get install python3-venv"; exit 1; }
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (torch first: whatever comes after it keeps that build)"
	@$(PY) -m pip install --disable-pip-version-check -c constraints.txt torch
	@$(PY) -m pip install --disable-pip-version-check -c constraints.txt -e '.[embedded,examples,benchmarks,dev]'
	@touch $@

demo: setup ## run the main job from task files to a hosted answer (KEEP=1 leaves the service running)
	@$(PY) -m examples.demo $(if $(KEEP),--keep)

test: setup ## run the tests
	@$(PY) -m pytest -n auto

test-s3: setup ## run the tests with all objects on a server that speaks S3
	@MANYICL_TEST_STORAGE=s3 $(PY) -m pytest -n auto

containers: setup ## try the deployment with Docker: build, use, kill, stop, back up and restore it
	@docker compose version >/dev/null 2>&1 && docker info >/dev/null 2>&1 || { echo "no Docker engine with Compose answers here; install Docker, or start it"; exit 1; }
	@MANYICL_TEST_CONTAINERS=1 MANYICL_TEST_PLANNED_STOPS=$(or $(STOPS),20) $(PY) -m pytest -x -q tests/containers

check: setup ## format, lint, types, layers, dependencies, containers
	@$(VENV)/bin/ruff format --check --quiet .
	@$(VENV)/bin/ruff check --quiet .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports --no-cache --no-logo
	@$(VENV)/bin/deptry .
	@$(PY) docker/check.py

format: setup ## format the code
	@$(VENV)/bin/ruff format --quiet .
	@$(VENV)/bin/ruff check --fix --quiet .

openapi: setup ## write docs/openapi.json anew, after a change of routes or schemas
	@$(PY) -m api.documentation docs/openapi.json

clean: ## remove the environment and the demo's data
	rm -rf $(VENV) .demo demo-report.json
