PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: train test check clean

train: $(BIN)/ensemble
	$(BIN)/python -m ensemble.train --branches vgg16,densenet121

test: $(VENV)/dev
	$(BIN)/python -m pytest -n auto --dist worksteal

check: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(BIN)/ensemble: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[openvino]'
	touch $@

$(VENV)/dev: $(BIN)/ensemble
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
