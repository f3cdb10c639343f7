# Two commands: `make bench` (set-up and the main job on the embedded model) and `make test` (set-up and all tests).
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: bench test lint generate_engines download_model download_data preprocess_data ratios schedules \
	accuracy-log scorer-speed gpu-overlap clean

bench: $(STAMP)
	$(BIN)/python -m pytest benchmarks --model-opt=DeepCache

# Files in their order: tests/conftest.py puts the long ones first, so that none is waited for at the end.
# One thread for each of the two workers: with more, OpenMP's threads spin for cores that the other worker has.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests -n 2 --dist=loadfile --no-loadscope-reorder --durations=30

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The benchmark's command: make generate_engines RUN_ARGS="--benchmarks=stable-diffusion-xl --model_opt=DeepCache"
generate_engines: $(STAMP)
	$(BIN)/python -m sdxl_engine.benchmark_command generate_engines $(RUN_ARGS)

# The benchmark's commands: BENCHMARKS=stable-diffusion-xl make download_model RUN_ARGS="--source=mlcommons"
download_model download_data preprocess_data: $(STAMP)
	$(BIN)/python -m sdxl_engine.benchmark_command $@ $(if $(BENCHMARKS),"--benchmarks=$(BENCHMARKS)") $(RUN_ARGS)

# Speed of the engines and of DeepCache against each other, on the embedded model.
ratios: $(STAMP)
	$(BIN)/python benchmarks/ratios.py

# Quality and speed of cache schedules on the embedded model; writes docs/schedules.png and the table in docs/schedules.md.
schedules: $(STAMP)
	$(BIN)/python benchmarks/schedules.py

# Speed and memory of reading an accuracy log; writes 2.2 GB to the temporary folder.
accuracy-log: $(STAMP)
	$(BIN)/python benchmarks/accuracy_log.py

# Speed of the accuracy scorer against that of MLPerf's own loop, on full-size networks of random weights.
scorer-speed: $(STAMP)
	$(BIN)/python benchmarks/scorer.py

# What CUDA graphs, overlapped copies and LoadGen make of the speed; needs a GPU.
gpu-overlap: $(STAMP)
	$(BIN)/python benchmarks/gpu_overlap.py

# pip, with the package in editable mode; done again when pyproject.toml changes.
$(STAMP): pyproject.toml
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.11 $(MAKECMDGOALS)")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $(STAMP)

clean:
	rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache
