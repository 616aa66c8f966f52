# make demo | test | lint | docs | faults | audit: each sets up what it needs in .venv first. PYTHON chooses the interpreter.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DOCS_STAMP := $(VENV)/.docs-installed

.PHONY: demo test lint format docs faults audit install clean

demo: $(STAMP)  ## the five-minute run: data, training, evaluation, report in runs/demo
	$(BIN)/icrl run --config configs/demo.yaml $(ARGS)

test: $(STAMP)  ## all tests
	$(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

faults: $(STAMP)  ## the long fault harness, about half an hour on two cores; writes runs/faults/table.md
	$(BIN)/python -m tests.faults.harness $(ARGS)

audit: $(STAMP)  ## known faults of the versions in constraints.txt, from the Python Packaging Advisory Database
	$(BIN)/python -m pip install --quiet pip-audit
	$(BIN)/pip-audit --requirement constraints.txt --no-deps --disable-pip

lint: $(STAMP)  ## formatting, lint with a static security scan, types, and the import contracts of pyproject.toml
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --no-cache

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(DOCS_STAMP)  ## the documentation site, in build/site; the variable turns off Material's note on its own future
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --clean --strict

install: $(STAMP)

# constraints.txt is the tested set; pyproject.toml has the wide ranges. Two packages are installed without what they ask
# for: Meta-World requires an older MuJoCo and trackio an older Pillow, but both work with the tested versions
# (data_gen/tasks/adapted/meta_world.py).
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps --constraint constraints.txt metaworld trackio
	touch $@

$(DOCS_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .mypy_cache
