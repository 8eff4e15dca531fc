# make cloak   a cloaked sample picture and a contact sheet, with the built-in models
# make test    formatter, linter, types and tests
# make test-rtx  every model in every precision, built by TensorRT-RTX; no GPU needed
# make test-gpu  what needs an NVIDIA GPU: parity, and seconds a step beside PyTorch's; on data-centre GPUs
#                with GPU_EXTRAS=dev,tensorrt
PYTHON ?= python3

BASE := .venv
DEV  := .venv-dev
GPU  := .venv-gpu
GPU_EXTRAS ?= dev

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

test-gpu: $(GPU)/.installed
	$(GPU)/bin/pytest -q tests/gpu
	$(GPU)/bin/python -m bench.gpu

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

# ONNX Runtime's package for GPUs has the folder of the one for processors, which has to go first.
$(GPU)/.installed: pyproject.toml
	$(PYTHON) -m venv $(GPU)
	$(GPU)/bin/pip install --quiet --disable-pip-version-check --editable '.[$(GPU_EXTRAS)]'
	$(GPU)/bin/pip uninstall --quiet --yes onnxruntime onnxruntime-gpu
	$(GPU)/bin/pip install --quiet --disable-pip-version-check 'onnxruntime-gpu[cuda,cudnn]'
	touch $@

clean:
	rm -rf $(BASE) $(DEV) $(GPU) out build *.egg-info
