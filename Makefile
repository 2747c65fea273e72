# Two commands: `make compare` trains and compares one model of each family; `make test` checks everything.
# `make bench` measures speed beside peers, `make bench-quality DATA=mnist.npz` the time to quality: docs/performance.md.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PEERS ?= .venv-peers
DATA ?= mnist.npz

.PHONY: compare test lint format clean bench bench-quality

compare: $(VENV)/.core
	$(BIN)/generama compare $(ARGS)

test: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile -m "not slow"

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev $(PEERS)/.ready
	$(BIN)/python -m benchmarks --peers $(PEERS)/bin/python $(ARGS)

bench-quality: $(VENV)/.core $(PEERS)/.ready
	$(BIN)/python -m benchmarks.time_to_quality --peers $(PEERS)/bin/python --data $(DATA) $(ARGS)

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache

$(PEERS)/.ready: benchmarks/peers.txt pyproject.toml
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --requirement benchmarks/peers.txt --editable .
	touch $@

$(VENV)/.core: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Generama needs Python 3.11 or newer; run: make PYTHON=python3.11 ...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.core
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@
