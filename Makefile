# Everything runs in a virtual environment of its own, .venv; nothing else on the machine is touched.
PYTHON ?= python3
# The CPU build of torch unless told otherwise: make demo TORCH=torch
TORCH ?= torch==2.13.0
BIN := .venv/bin
# A file's tests share what it made, so they stay in one process. In their order, a long file is not the last alone.
IN_TWO := --numprocesses 2 --dist loadfile --no-loadscope-reorder
# Threads that wait do not spin, which matters when other work shares the cores.
export OMP_WAIT_POLICY = PASSIVE

.PHONY: demo test test-all wheel-test lint docs clean

.venv/done: setup.py
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet $(TORCH)
	$(BIN)/pip install --quiet --editable ".[dev]"
	touch $@

demo: .venv/done  ## make the embedded CLIP robust, and evaluate it before and after
	$(BIN)/accelerate launch --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no examples/run_pmgaft.py

test: .venv/done  ## run the tests, in two processes
	$(BIN)/python -m pytest $(IN_TWO)

test-all: .venv/done  ## run the slow ones too: compilation, launchers, more kills
	$(BIN)/python -m pytest $(IN_TWO) -m ""

wheel-test: .venv/done  ## build the wheel, and use it in an empty environment outside the checkout
	TORCH=$(TORCH) $(BIN)/python -m pytest -m slow tests/integration/test_wheel.py

lint: .venv/done  ## style, and that imports point down
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

docs: .venv/docs-done  ## build docs/ into docs/build; a warning is an error
	$(BIN)/sphinx-build -W --keep-going -q docs docs/build
	@echo "The pages are in docs/build/index.html."

.venv/docs-done: .venv/done
	$(BIN)/pip install --quiet --editable ".[docs]"
	touch $@

clean:
	rm -rf .venv outputs build dist docs/build *.egg-info
