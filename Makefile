# Everything runs in a virtual environment of its own, .venv; nothing else on the machine is touched.
PYTHON ?= python3
# The CPU build of torch unless told otherwise: make demo TORCH=torch
TORCH ?= torch==2.13.0
BIN := .venv/bin
# A file's tests share what it made, so they stay in one process. In their order, a long file is not the last alone.
IN_TWO := --numprocesses 2 --dist loadfile --no-loadscope-reorder
# The second installation. The processor of SmolVLM asks for num2words.
ZOO := zoo 9 torch torchvision num2words --editable ".[test,zoo]"
# Threads that wait do not spin, which matters when other work shares the cores.
export OMP_WAIT_POLICY = PASSIVE

.PHONY: demo test test-all test-third test-zoo test-browser test-minimum wheel-test recipes families lint docs clean

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

test-third: .venv/done  ## run a third of the slow ones, which the commit decides
	$(BIN)/python -m pytest $(IN_TWO) -m slow --third $$(git rev-parse HEAD) --ignore tests/integration/test_wheel.py

# What reads images, models of others and the Hub; the rest does not know which libraries decode them.
test-zoo:  ## run them with the newest torch, torchvision and open_clip: 8 GB outside the checkout
	environment=$$(.ci/environment $(ZOO)) && \
	$$environment/bin/python -m pytest $(IN_TWO) --must-have torchvision --must-have open_clip --must-have num2words \
		tests/data tests/models tests/downstream tests/hub tests/zero_shot tests/evaluation \
		tests/borders/test_open_clip_configs.py tests/borders/test_open_clip_models.py

test-browser: .venv/browser-done  ## look at the pages in chromium, which must be installed
	$(BIN)/python -m pytest tests/test_docstrings.py -k demo --must-have gradio
	$(BIN)/python -m pytest tests/demo tests/cli/test_demo.py tests/pages tests/examples/test_study_pages.py --screenshots build/screenshots --must-have gradio --must-have playwright --must-have chromium --must-have axe --must-have html5lib

.venv/browser-done: .venv/done
	$(BIN)/pip install --quiet --editable ".[browser,demo]"
	touch $@

test-minimum: .venv/done  ## run the tests on the oldest versions that setup.py allows: 8 GB outside the checkout
	environment=$$(.ci/environment minimum 9 $$($(BIN)/python tests/support/minimum.py)) && \
	$$environment/bin/python -m pytest $(IN_TWO)

wheel-test: .venv/done  ## build the wheel, and use it in an empty environment outside the checkout
	TORCH=$(TORCH) $(BIN)/python -m pytest -m slow tests/integration/test_wheel.py

recipes: .venv/done  ## run every recipe over the Hub of the tests, and write docs/recipes.md
	$(BIN)/python -m pytest -m slow tests/integration/test_recipes.py -k whole_job --write

families:  ## run every family of vision-language models, and write docs/vision_language_families.md
	environment=$$(.ci/environment $(ZOO)) && \
	$$environment/bin/python -m pytest tests/downstream/test_family_table.py -k row --write --must-have torchvision

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
