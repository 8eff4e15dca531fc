# make cloak   a cloaked sample picture and a contact sheet, with the built-in models
# make test    formatter, linter, types and tests
# make test-rtx  every model in every precision, built by TensorRT-RTX; no GPU needed
# make test-gpu  what needs an NVIDIA GPU: parity, and seconds a step beside PyTorch's
PYTHON ?= python3

BASE := .venv
DEV  := .venv-dev

.PHONY: cloak test test-rtx test-gpu format clean

cloak: $(BASE)/.installed
	mkdir -p out
	$(BASE)/bin/glaze-trt cloak sample/harbour.png -o out/harbour.png --sheet out/harbour.sheet.png --overwrite

test: $(DEV)/.installed
	$(DEV)/bin/ruff format --check .
	$(DEV)/bin/ruff check .
	$(DEV)/bin/mypy
	$(DEV)/bin/pytest -q

test-rtx: $(DEV)/.installed
	$(DEV)/bin/python -m bench.matrix

test-gpu: $(DEV)/.installed
	$(DEV)/bin/pytest -q tests/gpu
	$(DEV)/bin/python -m bench.gpu

format: $(DEV)/.installed
	$(DEV)/bin/ruff format .
	$(DEV)/bin/ruff check --fix .

$(BASE)/.installed: pyproject.toml
	$(PYTHON) -m venv $(BASE)
	$(BASE)/bin/pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(DEV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(DEV)
	$(DEV)/bin/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

clean:
	rm -rf $(BASE) $(DEV) out build *.egg-info
