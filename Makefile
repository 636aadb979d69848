PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# What runs on another backend needs it in place of TensorFlow; a CPU build is enough.
JAX := jax>=0.6
TORCH := torch==2.13.0

.PHONY: train test test-jax test-torch check docs clean

train: $(BIN)/ensemble
	$(BIN)/python -m ensemble.train --branches vgg16,densenet121

test: $(VENV)/dev
	$(BIN)/python -m pytest -n auto --dist worksteal

test-jax: $(VENV)-jax/ready
	KERAS_BACKEND=jax $(VENV)-jax/bin/python -m pytest -n auto --dist worksteal -m "backend and not slow"

test-torch: $(VENV)-torch/ready
	KERAS_BACKEND=torch $(VENV)-torch/bin/python -m pytest -n auto --dist worksteal -m "backend and not slow"

check: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/docs
	$(BIN)/python -m tools.settings_page docs/reference/settings.md
	$(BIN)/zensical build --strict --clean

$(BIN)/ensemble: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[cpu]'
	touch $@

$(VENV)/dev: $(BIN)/ensemble
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

$(VENV)/docs: $(BIN)/ensemble
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	touch $@

$(VENV)-jax/ready: PACKAGE := $(JAX)
$(VENV)-torch/ready: PACKAGE := $(TORCH)
$(VENV)-jax/ready $(VENV)-torch/ready: pyproject.toml
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --upgrade pip
	$(@D)/bin/python tests/without_tensorflow.py > $(@D)/requirements.txt
	$(@D)/bin/python -m pip install --quiet '$(PACKAGE)' --requirement $(@D)/requirements.txt
	$(@D)/bin/python -m pip install --quiet --no-deps --editable .
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-jax $(VENV)-torch build dist site docs/reference/settings.md *.egg-info
