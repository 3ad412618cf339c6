# Each target sets up what it needs, in .venv, and nothing more. One environment, two stamps: training
# takes minutes less to set up without the tests' oracle (torch), and `make test` later only adds to
# what is there. A stamp is older than pyproject.toml when the dependencies may have changed; it is
# touched last, so an interrupted set-up is done again.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check

SET_UP_TRAIN := $(VENV)/.set-up-train
SET_UP_DEV := $(VENV)/.set-up-dev
SET_UP_BENCH := $(VENV)/.set-up-bench

.DEFAULT_GOAL := help
.PHONY: help train test slow soak bench bench-cpu gpu-check gpu-compile lint format clean

help:
	@echo "make train   train LeNet-5 on real handwritten digits, into runs/digits"
	@echo "make test    the test suite"
	@echo "make slow    the tests that take minutes"
	@echo "make soak    ten minutes of random networks, for memory that grows and steps that stall"
	@echo "make bench   a LeNet-5 training step, in under a minute"
	@echo "make bench-cpu   every network and op beside torch, onnxruntime, openvino; most of an hour"
	@echo "make gpu-check    on a machine with a GPU: the laws, training and figures, in ten minutes"
	@echo "make gpu-compile  every CUDA kernel for every generation of GPU, on any machine"
	@echo "make lint    ruff and mypy;  make format applies what ruff can"
	@echo "make clean   remove what make has made, the environment and runs/digits among it"
	@echo "PYTHON=... chooses the interpreter (3.11 to 3.13); now: $(PYTHON)"

train: $(SET_UP_TRAIN)
	@$(BIN)/deepkit train lenet5 --data digits --device auto --augment shift --epochs 20 --out runs/digits --overwrite

test: $(SET_UP_DEV)
	@$(BIN)/python -m pytest -q

slow: $(SET_UP_DEV)
	@$(BIN)/python -m pytest -q -m slow

soak: $(SET_UP_DEV)
	@$(BIN)/python -m pytest -q -s -m soak

bench: $(SET_UP_TRAIN)
	@$(BIN)/python -m bench.cpu train --network lenet5 --batch 128 --threads 2 --device numba numpy --no-compile --seconds 10

bench-cpu: $(SET_UP_BENCH)
	@$(BIN)/python -m bench.cpu all

# With what the machine has, CuPy and PyTorch: nothing is installed.
gpu-check:
	@$(PYTHON) -m bench.gpu.check --out bench/results/gpu-check.json

gpu-compile: $(SET_UP_DEV)
	@$(BIN)/python -m bench.gpu.resources

lint: $(SET_UP_DEV)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(SET_UP_DEV)
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist runs/digits .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find deepkit tests bench kernels -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || \
		{ echo "deepkit needs Python 3.11 to 3.13; '$(PYTHON)' is not one: make PYTHON=python3.12 ..."; exit 2; }
	@echo "making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)

$(SET_UP_TRAIN): pyproject.toml | $(BIN)/python
	@echo "installing deepkit with numba and plot"
	@$(PIP) -e '.[numba,plot]'
	@touch $@

$(SET_UP_DEV): pyproject.toml | $(BIN)/python
	@echo "installing deepkit with the tools of its development"
	@$(PIP) -e '.[dev]'
	@touch $@ $(SET_UP_TRAIN)

$(SET_UP_BENCH): pyproject.toml | $(BIN)/python
	@echo "installing deepkit with what it is compared with"
	@$(PIP) -e '.[bench]'
	@touch $@ $(SET_UP_TRAIN)
