# Every target does its own set-up: it needs Python 3.11 to 3.13 and make, nothing else.
VENV := .venv
BIN := $(VENV)/bin
# Workers that `make chaos` kills, on each database.
KILLS ?= 100
# The databases on which `make chaos` compares too: in peace and then under kills, so it takes minutes on each.
COMPARED ?= sqlite postgresql
# A folder with cifar-10-batches-py and mnist.npz; without it Keras downloads what a study needs.
DATA ?=
DATA_OPTION := $(if $(DATA),--data-dir "$(DATA)")

.DEFAULT_GOAL := help
.PHONY: $(shell grep -oE '^[a-z0-9-]+:' $(firstword $(MAKEFILE_LIST)) | tr -d :)

help:  ## Show the targets
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

$(VENV)/bin/python:
	@for python in python3 python3.13 python3.12 python3.11; do \
	  if $$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then \
	    echo "creating $(VENV) with $$($$python --version)"; exec $$python -m venv $(VENV); \
	  fi; \
	done; echo "error: no Python 3.11, 3.12 or 3.13 found (TensorFlow has no builds for others)" >&2; exit 1

$(VENV)/.installed-run: pyproject.toml | $(VENV)/bin/python
	@echo "installing (about a minute, mostly TensorFlow)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[cpu]'
	@touch $@

$(VENV)/.installed-test: pyproject.toml | $(VENV)/bin/python
	@echo "installing with what the tests need (about a minute, mostly TensorFlow)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[cpu,postgres,test]'
	@touch $@ $(VENV)/.installed-run

demo: $(VENV)/.installed-run  ## A real comparison on the embedded digits with two workers: verdict, report.html, best.json
	@rm -rf .demo && mkdir .demo
	@AFFINITY_SEARCH_STORAGE=sqlite:///.demo/affinity-search.db sh -ec '\
	  $(BIN)/affinity-search compare digits-demo --workers 2; \
	  $(BIN)/affinity-search report digits-demo -o report.html; \
	  $(BIN)/affinity-search export digits-demo -o best.json'
	@echo "look at every trial:  $(BIN)/affinity-search dashboard --storage sqlite:///.demo/affinity-search.db"

# A file's tests stay in one process, which shares its fixtures: a cluster, a browser, compiled functions.
# Three for two cores: some tests wait for time limits of the product.
PYTEST := $(BIN)/python -m pytest -q --numprocesses $(or $(PROCESSES),3) --dist loadfile --no-loadscope-reorder

test: $(VENV)/.installed-test  ## The tests (in three processes; PROCESSES=N for another number, LONG=1 with the long ones, COVERAGE=1 measures)
	$(PYTEST) $(if $(LONG),,-m "not long") $(if $(COVERAGE),--cov --cov-report=term-missing:skip-covered)

lint: $(VENV)/.installed-test  ## ruff, mypy, and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

rooms: $(VENV)/.installed-test  ## The house at a glance: rooms, who imports whom, how long functions and files are
	$(BIN)/python -m benchmarks.rooms

format: $(VENV)/.installed-test  ## Let ruff lay out the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

schema: $(VENV)/.installed-run  ## Write the JSON schemas of the export and of comparisons from their models
	$(BIN)/python -c "from affinity_search.storage.results.export import make_schema; print(make_schema(), end='')" \
	  > storage/results/export.schema.json
	$(BIN)/python -c "from affinity_search.search.experiments.document import make_schema; print(make_schema(), end='')" \
	  > search/experiments/comparison.schema.json

chaos: $(VENV)/.installed-test  ## Kill the workers of real searches again and again (KILLS=100, long and short trials, a comparison, SQLite and PostgreSQL)
	@for mode in long short ends; do for database in sqlite postgresql; do \
	  $(BIN)/python tests/chaos.py $$mode $$database --kills $(KILLS) || exit 1; done; done
	@for database in $(COMPARED); do $(BIN)/python tests/chaos.py compare $$database --kills $(KILLS) || exit 1; done

$(VENV)/.installed-docs: pyproject.toml | $(VENV)/.installed-run
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[cpu,docs]'
	@touch $@

docs: $(VENV)/.installed-docs  ## The documentation as a site, in site/: a link that leads nowhere ends the build
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet --clean

folds-table: $(VENV)/.installed-run  ## Many settings on one holdout, or fewer on several: MNIST, n = 10 (an hour on 2 cores)
	$(BIN)/python -m benchmarks.folds $(DATA_OPTION)

.venv-tpu/.installed: pyproject.toml | $(VENV)/bin/python
	@echo "installing JAX with libtpu (about a minute)"
	@$(BIN)/python -m venv .venv-tpu
	@.venv-tpu/bin/python -m pip install --quiet --disable-pip-version-check --editable . 'jax[tpu]>=0.8,<0.12'
	@touch $@

tpu-compile: .venv-tpu/.installed  ## Compile steps and predictions of every loss for TPUs that are not here (SMALLEST=1: little networks, 15 minutes on 2 cores)
	.venv-tpu/bin/python -m benchmarks.tpu_compile $(if $(SMALLEST),--smallest) $(if $(HEADS),--heads $(HEADS)) $(if $(TPUS),--tpus $(TPUS))

plan-table: $(VENV)/.installed-run  ## What `plan` says of five launches, and how long they take then (10 minutes; DATA=DIR for MNIST)
	$(BIN)/python -m benchmarks.plan_truth $(DATA_OPTION)

optuna-compare: $(VENV)/.installed-test  ## What goes wrong with many processes: plain Optuna and ours, side by side (5 minutes)
	cd benchmarks && PYTHONPATH=../tests ../$(BIN)/python -m optuna_compare

# An environment of its own: the rivals bring packages that nothing else here needs.
.venv-race/.installed-race: pyproject.toml
	@$(MAKE) --no-print-directory VENV=.venv-race .venv-race/bin/python
	@echo "installing with the extra race (minutes)"
	@.venv-race/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[cpu,race]'
	@touch $@

race: .venv-race/.installed-race  ## The same whole job by ours, plain Optuna, KerasTuner and Ray Tune (40 minutes on 2 cores, 20 without DATA)
	.venv-race/bin/python -m benchmarks.race $(DATA_OPTION)

search-table: $(VENV)/.installed-run  ## Record benchmarks/sampling/*.csv: real trials on MNIST and on CIFAR-10 (hours on 2 cores)
	$(BIN)/python -m benchmarks.sampling.record mnist $(DATA_OPTION)
	$(BIN)/python -m benchmarks.sampling.record cifar10 $(DATA_OPTION)

search-compare: $(VENV)/.installed-run  ## Which sampler and pruner find good parameters in the fewest epochs, replayed: chosen on MNIST, judged on CIFAR-10 (40 minutes)
	$(BIN)/python -m benchmarks.sampling.compare mnist
	$(BIN)/python -m benchmarks.sampling.compare cifar10 --few

test-noise: $(VENV)/.installed-run  ## How much the luck of the test images moves macro F1, simulated (a minute)
	$(BIN)/python -m benchmarks.noise

verdicts: $(VENV)/.installed-run  ## How often the verdicts of a comparison are wrong and what they find, simulated (3 minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.verdicts

storage-bench: $(VENV)/.installed-test  ## Trials per second against plain Optuna, SQLite and PostgreSQL, 1 to 8 processes (10 minutes)
	PYTHONPATH=tests $(BIN)/python -m benchmarks.throughput

storage-pays: $(VENV)/.installed-test  ## Whether our statements in place of Optuna's are felt where a trial takes 5 s (8 workers, 5 minutes)
	PYTHONPATH=tests $(BIN)/python -m benchmarks.throughput --trial-s 5 --peer "our worker, Optuna's statements" \
	  --processes 8 --samplers tpe

overhead: $(VENV)/.installed-test  ## What the service costs a trial in studies of 1 to 10,000 finished trials (4 minutes)
	PYTHONPATH=tests $(BIN)/python -m benchmarks.overhead

growth: $(VENV)/.installed-test  ## Trials per second and seconds per claim with 10 to 100,000 trials and 1 to 256 workers, PostgreSQL (half an hour)
	PYTHONPATH=tests $(BIN)/python -m benchmarks.growth

trial-rate: $(VENV)/.installed-run  ## Trials per minute of the digits study, and what one costs (2 minutes)
	$(BIN)/python -m benchmarks.trial_rate

start: $(VENV)/.installed-run  ## Seconds from launch to the first training step (2 minutes)
	$(BIN)/python -m benchmarks.start $(DATA_OPTION)

own-images: $(VENV)/.installed-run  ## Seconds and memory for 50,000 images of one's own in 40 classes (4 minutes)
	$(BIN)/python -m benchmarks.own_images

mnist-table: $(VENV)/.installed-run  ## What tuning is worth on MNIST, n = 10, 6 epochs (20 minutes on 2 cores)
	$(BIN)/python benchmarks/mnist_table.py $(DATA_OPTION)

dashboard-load: $(VENV)/.installed-run  ## How long the dashboard takes with 10,000 trials (a minute and a half)
	$(BIN)/python benchmarks/dashboard_load.py

mnist-features: $(VENV)/.installed-test  ## The picture of features in docs/share.md, with a small and a large margin (10 minutes)
	$(BIN)/python benchmarks/mnist_features.py $(DATA_OPTION)

test-jax: $(VENV)/.installed-test  ## The training tests once more, on Keras' JAX backend
	KERAS_BACKEND=jax $(PYTEST) --timeout 1200 $(addprefix tests/search/training/test_,affinity.py diagnostics.py fit.py fit_heads.py heads.py network_kinds.py networks.py normalization.py schedule.py) \
	  tests/search/devices/test_devices.py

claim-bench: $(VENV)/.installed-run  ## From a place's claim to its first step, against a network built anew for each trial (3 minutes)
	$(BIN)/python -m benchmarks.claim $(DATA_OPTION)

screens: $(VENV)/.installed-test  ## The pictures of the live view in README and docs, and of the dashboard, from a real search (needs chromium)
	$(BIN)/python tests/screens.py

cifar10-search: $(VENV)/.installed-run  ## A real CIFAR-10 search with a small network (5 minutes on 2 cores)
	$(BIN)/python benchmarks/cifar10_search.py $(DATA_OPTION)

# An environment for each backend: TensorFlow brings the libraries of CUDA 12, JAX those of 13.
GPU_EXTRA := $(if $(filter jax,$(KERAS_BACKEND)),jax-gpu,gpu)
GPU_VENV := .venv-$(GPU_EXTRA)

$(VENV)/.installed-gpu: pyproject.toml | $(VENV)/bin/python
	@echo "installing with the extra $(GPU_EXTRA) (minutes: gigabytes of CUDA libraries)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$(GPU_EXTRA)]'
	@touch $@

gpu-bench:  ## What an NVIDIA GPU makes of the article's network: seconds, F1, TFLOP/s, share of its rate (KERAS_BACKEND=jax: on JAX)
	@command -v nvidia-smi >/dev/null || { echo "error: no NVIDIA driver here (no nvidia-smi); run it on a machine with a GPU"; exit 1; }
	@$(MAKE) --no-print-directory VENV=$(GPU_VENV) $(GPU_VENV)/.installed-gpu
	$(GPU_VENV)/bin/python -m benchmarks.gpu $(DATA_OPTION)

$(VENV)/.installed-gpu-check: pyproject.toml | $(VENV)/bin/python
	@echo "installing with the extras $(GPU_EXTRA) and test (minutes: gigabytes of CUDA libraries)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$(GPU_EXTRA),test]'
	@touch $@ $(VENV)/.installed-gpu

gpu-check:  ## Prove the program on an NVIDIA GPU: tests, search, kill, full memory, speed, equal results, plan (9 minutes; KERAS_BACKEND=jax: on JAX)
	@command -v nvidia-smi >/dev/null || { echo "error: no NVIDIA driver here (no nvidia-smi); run it on a machine with a GPU"; exit 1; }
	@$(MAKE) --no-print-directory VENV=$(GPU_VENV) $(GPU_VENV)/.installed-gpu-check
	$(GPU_VENV)/bin/python -m benchmarks.gpu_check --out benchmarks/out $(DATA_OPTION)

step-bench: $(VENV)/.installed-test  ## A training step's speed against PyTorch's (installs torch; 4 minutes, 15 without AVX-512)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/python benchmarks/step

precision-pairs: $(VENV)/.installed-run  ## What bfloat16 costs in F1, over paired seeds on MNIST (about 10 minutes on 2 cores)
	$(BIN)/python benchmarks/precision.py $(DATA_OPTION)

notebook: $(VENV)/.installed-test  ## Run the notebook of examples/ (a minute); its file stays as it is
	$(BIN)/jupyter execute --timeout=300 --output=$${TMPDIR:-/tmp}/affinity-search-notebook.ipynb examples/explore.ipynb

secrets:  ## Random passwords for docker-compose.yml in secrets/, none of them overwritten
	@deploy/secrets.sh

# Versions and hashes of all that the container images install, for Python 3.13; the tool names the indexes it is told
# of unless it is told not to.
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.13 --generate-hashes --no-annotate --no-header \
  --no-emit-index-url --no-emit-find-links --upgrade pyproject.toml --extra postgres

lock: $(VENV)/.installed-test  ## Pin again what the container images install
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9,<1'
	$(LOCK) --extra cpu --output-file requirements.lock
	$(LOCK) --extra gpu --output-file requirements-gpu.lock

compose-test: $(VENV)/.installed-test  ## Build and run docker-compose.yml with three workers, kill one (10 minutes)
	$(BIN)/python tests/compose_test.py

clean:  ## Remove what make made
	rm -rf $(VENV) .venv-race .venv-gpu .venv-jax-gpu .demo best.json .mypy_cache .ruff_cache .pytest_cache .coverage* build *.egg-info
