# make demo, make dev, make test: each installs what it needs into .venv first.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
export DAGSTER_HOME ?= $(CURDIR)/.dagster_home
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes
# The checkout itself, so that the dagster script finds it from anywhere.
INSTALL := @$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .

FROM ?= 1
SIMULATE := --seeds $(or $(SEEDS),100) --from $(FROM) $(if $(KEEP_GOING),--keep-going)

.PHONY: help demo dev doctor test simulate bench test-newest check format requirements clean

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

demo: $(VENV)/run.stamp  ## orders loaded, changed, loaded again and checked, in half a minute
	@$(BIN)/python -m orders_dagster.demo

dev: $(VENV)/run.stamp $(DAGSTER_HOME)/dagster.yaml  ## the Dagster page, with a sandbox API unless yours is configured
	@$(BIN)/python -m orders_dagster.dev $(if $(PORT),--port $(PORT)) $(if $(SANDBOX_PORT),--sandbox-port $(SANDBOX_PORT))

doctor: $(VENV)/run.stamp  ## try the configured API and warehouse before anything is loaded
	@$(BIN)/orders-dagster doctor $(ARGS)

test: $(VENV)/dev.stamp  ## all tests
	@$(BIN)/python -m pytest -n 3 --dist worksteal $(ARGS)

bench: $(VENV)/run.stamp  ## what a run costs beside a bare rest_api_source (CASES="idle load" RUNS=5 to choose)
	@$(BIN)/python -m orders_dagster_tests.bench $(if $(CASES),--cases $(CASES)) $(if $(RUNS),--runs $(RUNS)) $(if $(SCALE),--scale $(SCALE))

simulate: $(VENV)/dev.stamp  ## changes, faults, kills and repairs by seed: SEEDS=10000 FROM=1, or SEED=42 to replay one
	@$(BIN)/python -m orders_dagster_tests.simulation $(if $(SEED),--seed $(SEED),$(SIMULATE))

check: $(VENV)/dev.stamp  ## linter, formatter and type checker
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test-newest:  ## all tests on the newest dagster, dagster-dlt, dlt and duckdb, in an environment of its own
	$(PYTHON) -m venv --clear .venv-newest
	.venv-newest/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	.venv-newest/bin/python -m pip install --quiet --disable-pip-version-check --upgrade \
		dagster dagster-webserver dagster-dlt "dlt[duckdb]" duckdb
	.venv-newest/bin/python -m pip install --quiet --no-deps --no-build-isolation -e .
	.venv-newest/bin/python -m pytest -n 3 --dist worksteal $(ARGS)

format: $(VENV)/dev.stamp  ## write the code as the formatter wants it
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

requirements: $(VENV)/dev.stamp  ## refresh the exact versions and hashes from the ranges in pyproject.toml
	$(BIN)/uv pip compile pyproject.toml --upgrade --extra build -o requirements.txt $(COMPILE)
	$(BIN)/uv pip compile pyproject.toml --upgrade --extra build --extra dev -c requirements.txt -o requirements-dev.txt $(COMPILE)

COMPILE := --universal --python-version 3.11 --generate-hashes --no-strip-extras --no-header --no-annotate --quiet

clean:  ## start over: forget the environment, the sandbox's warehouse and Dagster's records, not yours
	rm -rf $(VENV) .dagster_home .demo sandbox.duckdb sandbox.duckdb.wal

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/run.stamp: requirements.txt | $(VENV)/bin/python
	$(PIP) -r requirements.txt
	$(INSTALL)
	@touch $@

$(VENV)/dev.stamp: requirements-dev.txt | $(VENV)/bin/python
	$(PIP) -r requirements-dev.txt
	$(INSTALL)
	@touch $@ $(VENV)/run.stamp

$(DAGSTER_HOME)/dagster.yaml: dagster.yaml
	@mkdir -p $(@D)
	@cp $< $@
