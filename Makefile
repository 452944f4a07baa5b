# `make help` lists what can be done. Needs Python 3.11 or newer, make and pip.

# The environment is reused until the lock file or the Python asked for changes: the
# stamp's name holds both, and it is written last, so half an install does not count.
# The newest supported Python that really starts: a version manager's shim may not.
PYTHON ?= $(shell for python in .venv/bin/python python3.13 python3.12 python3.11; do \
  $$python -c "import ensurepip" 2>/dev/null && echo $$python && exit; done; echo python3)
STATE := $(shell ($(PYTHON) --version; cat requirements.lock) 2>&1 | cksum)
READY := .venv/ready-$(firstword $(STATE))
# The compiler for TPUs, for the slow tests of experiments.estimate; 0.2 GB.
AOT := .venv/tpu-aot-$(firstword $(STATE))
RUN := .venv/bin/python
PIP := $(RUN) -m pip --quiet --quiet --disable-pip-version-check
# uv takes seconds where pip takes a minute; where it has no wheel, pip does the same.
# It reads no pip.conf, so a mirror that is named there is handed on.
INDEX = $(shell $(PIP) config get global.index-url 2>/dev/null)
UV = VIRTUAL_ENV=.venv $(if $(INDEX),UV_DEFAULT_INDEX=$(INDEX)) .venv/bin/uv pip --quiet
OPTIONS := --no-deps --no-build-isolation

.PHONY: help ablation test test-all bench bench-check docs notebook lint format lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' Makefile

ablation: $(READY) ## answer the question: train, compare, write a report
	@$(RUN) -m experiments.sweep --config=experiments/configs/quickstart.py \
	  --workdir=runs/quickstart

# All at once, or some: make test FILE=tests/setup/test_spec.py K="rope and not yarn"
test: $(READY) ## run the quick tests on two cores; FILE=... and K=... choose some
	@$(RUN) -m pytest $(if $(FILE)$(K),$(FILE) $(if $(K),-k "$(K)"),--numprocesses=2 --dist=worksteal)

test-all: $(READY) $(AOT) ## run every test, the slow ones too
	@$(RUN) -m pytest --numprocesses=2 --dist=worksteal -m ""

bench: $(READY) ## measure speed and memory beside other libraries, write docs/benchmarks.md
	@$(RUN) -m experiments.bench

bench-check: $(READY) ## compare this project's speed ratios with the recorded ones
	@$(RUN) -m experiments.bench --check

docs: $(READY) ## build docs/ as a site, in docs/_build: links checked, API pages too
	@$(RUN) -m sphinx --quiet --fail-on-warning --keep-going docs docs/_build
	@echo "open docs/_build/index.html"

# Jupyter comes for this once, beside the environment and not into it.
notebook: $(READY) ## run the notebook of docs/ on runs/quickstart, and save its outputs
	@$(if $(INDEX),UV_DEFAULT_INDEX=$(INDEX)) .venv/bin/uv run --quiet --no-project \
	  --python=$(RUN) --with-requirements=requirements-notebook.txt \
	  python tools/run_notebook.py docs/howto/look_into_a_run.ipynb

lint: $(READY) ## check style, types, imports, and that generated pages are not stale
	@$(RUN) -m ruff check
	@$(RUN) -m ruff format --check
	@$(RUN) -m mypy
	@$(RUN) .venv/bin/lint-imports --no-cache --no-logo
	@$(RUN) -m experiments.catalogue --check

format: $(READY) ## put the code in the house style
	@$(RUN) -m ruff check --fix
	@$(RUN) -m ruff format

lock: $(READY) ## pin the newest releases in requirements.lock
	@.venv/bin/uv pip compile setup.cfg --extra=dev --universal --python-version=3.11 \
	  --no-emit-index-url --no-header --upgrade --quiet \
	  --output-file=requirements.lock

clean: ## remove the environment, all runs and all caches
	@rm -rf .venv .venv-peers runs build dist *.egg-info .pytest_cache .ruff_cache \
	  .import_linter_cache .mypy_cache .jax_cache docs/_build docs/api
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "transformer_jax needs Python 3.11 or newer; $(PYTHON) is" \
	    "$$($(PYTHON) -c 'import sys; print(sys.version.split()[0])' 2>/dev/null \
	    || echo not there)." >&2; \
	  echo "Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "Installing into .venv, once: about 1.4 GB, half a minute on a fast line ..."
	@# setuptools first: the pinned one builds what comes without a wheel.
	@$(PYTHON) -m venv --clear .venv && \
	  $(PIP) install --constraint=requirements.lock setuptools && \
	  { $(PIP) install --constraint=requirements.lock --only-binary=uv uv && \
	    $(UV) install $(OPTIONS) --requirement=requirements.lock || \
	    $(PIP) install $(OPTIONS) --requirement=requirements.lock; } && \
	  $(PIP) install $(OPTIONS) --editable=. && \
	  $(PIP) check && \
	  touch $@ || { \
	  echo "The installation stopped, for the reason above. It needs the network" \
	    "this once; the next make starts it afresh." >&2; exit 1; }

$(AOT): $(READY)
	@{ $(UV) install --no-build-isolation --constraint=requirements.lock \
	    --editable='.[tpu-aot]' || \
	  $(PIP) install --no-build-isolation --constraint=requirements.lock \
	    --editable='.[tpu-aot]'; } && touch $@
