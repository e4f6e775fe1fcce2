# Two commands to know: `make run` and `make test`. Both set everything up from a fresh clone.
PYTHON ?= $(firstword $(shell command -v python3.11 python3.12 python3.13 python3))
VENV := .venv
SETUP := $(VENV)/.complete
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.PHONY: help run test coverage test-lightning check format lock ui clean
help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

run: $(SETUP) ## dvc repro (prepare, train, evaluate), then the results
	@dvc repro
	@litlab report runs/pipeline

# Compiled test files are kept, whatever the environment says: rewriting them takes each worker ten
# seconds. With worksteal no worker waits while another still has several long tests to do.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 pytest -n 2 --dist worksteal

test: $(SETUP) ## the whole test suite
	@$(PYTEST) $(ARGS)

coverage: $(SETUP) ## the fast tests, with at least 90 % of the lines run; tracing costs half as much again
	@$(PYTEST) -m "not slow" --cov=litlab --cov-report=term:skip-covered --cov-fail-under=90

check: $(SETUP) ## linting, formatting and types: what pre-commit and CI run
	ruff check .
	ruff format --check .
	mypy

format: $(SETUP) ## let ruff rewrite what it can
	ruff check --fix .
	ruff format .

ui: $(SETUP) ## MLflow's pages on this project's runs
	@litlab ui

test-lightning: $(SETUP) ## the training loop against the oldest Lightning of the range
	@scripts/test-lightning-range.sh

lock: $(SETUP) ## write the installed versions into constraints.txt (torch keeps its range)
	@{ echo "# Exact versions that the tests passed with; \`make lock\` writes this file."; \
	   echo "# torch is left to its range in pyproject.toml, so that a local CPU build can be taken."; \
	   pip freeze --exclude-editable --exclude torch --exclude pip --exclude setuptools; \
	 } > constraints.txt

clean: ## remove the environment and caches; data, runs and results stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache

# A half-finished installation leaves no stamp, so the next call goes on with it.
$(SETUP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python 3.11 or newer is needed | " + sys.executable + " | make PYTHON=/path/to/python3.11 run")'
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (a few minutes the first time)"
	@python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@
