# `make demo` and `make test` do all the set-up themselves, in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed

.PHONY: demo test slow check tutorials docs gpu clean

demo: $(STAMP)
	$(BIN)/python examples/microlens_1m.py

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

# The thorough variants that `test` leaves out: many kills, simulations, compilers; ten minutes.
slow: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow --numprocesses 2 --dist loadfile

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Every notebook from top to bottom; an error fails, and so does more than 45 s.
tutorials: $(STAMP)
	$(BIN)/python docs/tutorials/notebooks.py --run --out build/tutorials

# The site, into build/site; a broken link or a public name that is not in the reference ends it.
# Tutorials have their pictures where `make tutorials` was called before.
docs: $(VENV)/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

$(VENV)/docs: $(STAMP)
	$(BIN)/python -m pip install --progress-bar off --quiet --editable '.[docs]'
	touch $@

# All that waits for a card, with the Python that is there: a bare machine has no network.
# `make gpu GPU="--device cpu --small --out gpu.json" PYTHON=.venv/bin/python` rehearses it.
gpu:
	$(PYTHON) benchmarks/gpu.py $(GPU)

# fuxictr comes without its dependencies: tests compare layers with one file of it that needs none.
$(STAMP): pyproject.toml Makefile
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --progress-bar off --quiet torch torchvision
	$(BIN)/python -m pip install --progress-bar off --quiet --editable '.[dev]'
	$(BIN)/python -m pip install --progress-bar off --quiet --no-deps fuxictr==2.3.10
	touch $@

clean:
	rm -rf $(VENV) out build *.egg-info
