# Everything runs in a virtual environment of its own, .venv, which is made when it is first needed.
PYTHON ?= python3
BIN := .venv/bin
# pip tries versions of boto3 and of what s3fs needs against each other for minutes. Compiled, since the tests start
# hundreds of processes, which may not be allowed to write what they have compiled.
INSTALL := $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python

.PHONY: demo test lint types tests bench clean

demo: .venv/.package
	$(BIN)/python -m benchmarks.demo

test: lint types tests

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.dev
	$(BIN)/mypy

tests: .venv/.dev
	$(BIN)/pytest -n 3 --dist loadfile

bench: .venv/.dev
	$(BIN)/python -m benchmarks

clean:
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

.venv/.package: setup.cfg pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet uv
	$(INSTALL) --editable .
	touch $@

.venv/.dev: .venv/.package
	$(INSTALL) --editable '.[dev]'
	touch $@
