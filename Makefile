# make demo    sets everything up (Python 3.11+ with venv, nothing else) and shows the main job on embedded defaults
# make test    sets everything up (on Debian also what the servers need) and runs every test: what CI runs
# PYTHON=...   the interpreter to use (default: python3)

PYTHON ?= python3
export PYTHON
# Most tests wait for a server or a process: two workers for each of two cores. Whole files go to one of them, so that
# it starts few servers.
WORKERS ?= 4
PYTEST = .venv/bin/python -m pytest --dist loadfile --no-loadscope-reorder --durations=25

.PHONY: help setup test lint types test-quick demo soak mutants bench docs clean

help:
	@sed -n '1,3s/^# //p' Makefile

.venv/base: pyproject.toml constraints.txt
	@scripts/setup base

.venv/all: pyproject.toml constraints.txt tests/requirements.txt
	@scripts/setup all

setup: .venv/all
	@scripts/system-packages
	@scripts/fetch-servers

test: setup lint types
	$(PYTEST) -n $(WORKERS) -m "not soak and not alone"
	$(PYTEST) -n 2 -m "alone and not soak"

lint: .venv/all
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

types: .venv/all
	.venv/bin/mypy
	.venv/bin/basedpyright -p tests/typing

# Without servers from outside: nothing but Python is needed.
test-quick: .venv/all
	$(PYTEST) -n $(WORKERS) -m "not soak and not alone and not servers"

demo: .venv/base
	@.venv/bin/dewy demo

# One test at a time, without a time limit.
soak: setup
	.venv/bin/python -m pytest -m soak --timeout 0 -s

# Breaks the code on purpose, in copies of the tree, and shows which test finds each fault; docs/mutation.md.
mutants: .venv/all
	.venv/bin/python scripts/mutants.py

bench: setup  # writes docs/benchmarks.md
	.venv/bin/python -m bench

docs: .venv/all  # into build/site
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict

clean:
	rm -rf .venv .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
