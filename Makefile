# make cloak   a cloaked sample picture and a contact sheet, with the built-in models
# make test    formatter, linter, types and tests
PYTHON ?= python3

BASE := .venv
DEV  := .venv-dev

.PHONY: cloak test format clean

cloak: $(BASE)/.installed
	mkdir -p out
	$(BASE)/bin/glaze-trt cloak sample/harbour.png -o out/harbour.png --sheet out/harbour.sheet.png --overwrite

test: $(DEV)/.installed
	$(DEV)/bin/ruff format --check .
	$(DEV)/bin/ruff check .
	$(DEV)/bin/mypy
	$(DEV)/bin/pytest -q

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
