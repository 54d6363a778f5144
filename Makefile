# Needs Python 3.11 and make. Everything else is fetched once into the user's cache, and works from there without network.
PYTHON ?= python3.11
VENV := .venv
CACHE := $(or $(LODE_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/lode)
LOCK := $(shell sha256sum requirements.lock | cut -c1-16)
WHEELS := $(CACHE)/wheels/$(LOCK)
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help install demo test check bench lock clean

help:  ## Show what there is
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: install  ## Run the main job on real servers: Kafka to HDFS, S3 and HBase, and replays (about 5 minutes)
	$(BIN)/lode demo

test: install  ## Run all the tests, on real servers
	$(BIN)/python -m pytest

check: install  ## Lint and check types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: install  ## Measure generate, land, archive, replay and diff side by side with their limits
	$(BIN)/python -m bench

install: $(VENV)/.installed-$(LOCK)  ## Make the virtual environment from the lock file

# Each file gets its name only when it is whole, so that a stopped run can be run again.
$(WHEELS)/.complete:
	@echo "Fetching the locked Python packages (about 900 MB, once)"
	@rm -rf $(WHEELS).new && mkdir -p $(WHEELS).new && rm -rf $(VENV).build && $(PYTHON) -m venv $(VENV).build
	@$(VENV).build/bin/pip wheel --disable-pip-version-check --progress-bar on --require-hashes --no-deps \
	    -r requirements.lock -w $(WHEELS).new
	@$(VENV).build/bin/pip wheel --disable-pip-version-check -q --no-deps "setuptools>=80,<81" -w $(WHEELS).new
	@rm -rf $(VENV).build $(WHEELS) && touch $(WHEELS).new/.complete && mv $(WHEELS).new $(WHEELS)

$(VENV)/.installed-$(LOCK): $(WHEELS)/.complete
	@echo "Installing into $(VENV)"
	@rm -rf $(VENV) && $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --disable-pip-version-check -q --no-index --no-deps $(WHEELS)/*.whl
	@$(BIN)/pip install --disable-pip-version-check -q --no-index --no-deps --no-build-isolation -e .
	@$(BIN)/python -m pipeline_lib.stack.spark_archive
	@touch $@

lock:  ## Resolve the dependencies again (for developers; needs network)
	$(PYTHON) -m venv $(VENV).lock && $(VENV).lock/bin/pip install -q uv
	$(VENV).lock/bin/uv pip compile pyproject.toml --group pyproject.toml:dev --universal --generate-hashes \
	    --no-annotate --no-header --no-emit-index-url --python-version 3.11 --upgrade -o requirements.lock
	rm -rf $(VENV).lock

clean:  ## Remove the virtual environment and the local stacks' data; the caches stay
	rm -rf $(VENV) .lode
