# make demo | make test | make lint: each is one command on a fresh machine that has Python 3.10+ and make.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help venv demo test lint twins clean

help:
	@echo "make demo    super-resolve the built-in synthetic pair; results in demo/"
	@echo "make test    the test suite"
	@echo "make lint    ruff and mypy"
	@echo "make twins   write the JSON twin of each workflow after its YAML changed"
	@echo "make clean   remove the environment and results"

venv: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[train,dev]'
	@touch $@

demo: venv
	$(BIN)/python scripts/demo.py --output demo

test: venv
	$(BIN)/python -m pytest

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

twins: venv
	$(BIN)/python scripts/write_json_twins.py

clean:
	rm -rf .venv demo
