# Needs Python 3.11 and make. Everything else is fetched once into the user's cache, and works from there without network.
PYTHON ?= python3.11
VENV := .venv
CACHE := $(or $(LODE_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/lode)
LOCK := $(shell sha256sum requirements.lock | cut -c1-16)
WHEELS := $(CACHE)/wheels/$(LOCK)
BIN := $(VENV)/bin
AIRFLOW := .venv-airflow
AIRFLOW_LOCK := $(shell sha256sum requirements-airflow.lock | cut -c1-16)
AIRFLOW_WHEELS := $(CACHE)/wheels/$(AIRFLOW_LOCK)
TEST_PROCESSES ?= 2

.DEFAULT_GOAL := help
.PHONY: help install airflow demo test check bench lock clean

help:  ## Show what there is
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: install  ## Run the main job on real servers: Kafka to HDFS, S3 and HBase, and replays (about 5 minutes)
	$(BIN)/lode demo

# The DAGs' tests run where Airflow is, in a pytest of their own, and first: the suite's closing line stays the last one.
# Files keep their order: those at the end restart servers that the ones before have asked for.
test: install airflow  ## Run all the tests, on real servers (TEST_PROCESSES=1 for a machine of less than 20 GB)
	$(AIRFLOW)/bin/python -m pytest -c tests/dags/pytest.ini tests/dags
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder

check: install  ## Lint and check types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: install  ## Measure generate, land, archive, replay and diff side by side with their limits
	$(BIN)/python -m bench

install: $(VENV)/.installed-$(LOCK)  ## Make the virtual environment from the lock file

airflow: install $(AIRFLOW)/.installed-$(AIRFLOW_LOCK)  ## Make Airflow's own virtual environment (for lode airflow up)

# Each file gets its name only when it is whole, so that a stopped run can be run again.
# $(1): the lock file, $(2): the folder of its wheels, $(3): the virtual environment
define fetch
	@rm -rf $(2).new && mkdir -p $(2).new && rm -rf $(3).build && $(PYTHON) -m venv $(3).build
	@$(3).build/bin/pip wheel --disable-pip-version-check --progress-bar on --require-hashes --no-deps -r $(1) -w $(2).new
	@$(3).build/bin/pip wheel --disable-pip-version-check -q --no-deps "setuptools>=80,<81" -w $(2).new
	@rm -rf $(3).build $(2) && touch $(2).new/.complete && mv $(2).new $(2)
endef

$(WHEELS)/.complete:
	@echo "Fetching the locked Python packages (about 900 MB, once)"
	$(call fetch,requirements.lock,$(WHEELS),$(VENV))

$(AIRFLOW_WHEELS)/.complete:
	@echo "Fetching Airflow's locked Python packages (about 140 MB, once)"
	$(call fetch,requirements-airflow.lock,$(AIRFLOW_WHEELS),$(AIRFLOW))

$(VENV)/.installed-$(LOCK): $(WHEELS)/.complete
	@echo "Installing into $(VENV)"
	@rm -rf $(VENV) && $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --disable-pip-version-check -q --no-index --no-deps $(WHEELS)/*.whl
	@$(BIN)/pip install --disable-pip-version-check -q --no-index --no-deps --no-build-isolation -e .
	@$(BIN)/python -m pipeline_lib.stack.spark_archive
	@touch $@

$(AIRFLOW)/.installed-$(AIRFLOW_LOCK): $(AIRFLOW_WHEELS)/.complete
	@echo "Installing into $(AIRFLOW)"
	@rm -rf $(AIRFLOW) && $(PYTHON) -m venv $(AIRFLOW)
	@$(AIRFLOW)/bin/pip install --disable-pip-version-check -q --no-index --no-deps $(AIRFLOW_WHEELS)/*.whl
	@touch $@

RESOLVE := --universal --generate-hashes --no-annotate --no-header --no-emit-index-url --python-version 3.11 --upgrade

lock:  ## Resolve the dependencies again (for developers; needs network)
	$(PYTHON) -m venv $(VENV).lock && $(VENV).lock/bin/pip install -q uv
	$(VENV).lock/bin/uv pip compile pyproject.toml --group pyproject.toml:dev $(RESOLVE) -o requirements.lock
	$(VENV).lock/bin/uv pip compile --group pyproject.toml:airflow $(RESOLVE) -o requirements-airflow.lock
	rm -rf $(VENV).lock

clean:  ## Remove the virtual environments and the local stacks' data; the caches stay
	rm -rf $(VENV) $(AIRFLOW) .lode
