# make reproduce and make test do all set-up themselves; nothing else is needed first.
PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

# PyPI's Linux wheel of torch carries CUDA; without an NVIDIA driver PyTorch's own CPU wheel is a tenth of it.
ifeq ($(shell uname -s),Linux)
ifeq ($(shell command -v nvidia-smi 2>/dev/null),)
CPU_WHEELS := --extra-index-url https://download.pytorch.org/whl/cpu
endif
endif

.PHONY: setup reproduce test lint bench docs clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "loopscale needs Python 3.11 or newer; name one with: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (a few minutes the first time)"
	@# a torch already there, then a wheel at hand (PIP_FIND_LINKS), before any download
	@$(BIN)/python -c 'import torch' 2>/dev/null || $(PIP) --no-index --no-deps $(TORCH) 2>/dev/null || $(PIP) $(CPU_WHEELS) $(TORCH)
	@$(PIP) -e '.[dev]'
	@touch $@

reproduce: setup
	$(BIN)/loopscale reproduce --config configs/laptop-rates.yaml --out runs/laptop

test: setup
	$(BIN)/python -m pytest -n 2 --dist worksteal -q --cov --cov-report=

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup
	$(BIN)/python -m benchmarks

docs: setup
	@$(PIP) -e '.[docs]'
	$(BIN)/python -m docs.site

clean:
	rm -rf runs build .pytest_cache .mypy_cache .ruff_cache
