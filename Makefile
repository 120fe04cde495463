# What people type. `make demo` and `make test` may each be the first command on a fresh machine.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.9
ARGS ?=
# A folder for JUnit files, one a level; none by default.
REPORTS ?=
# One more than processors: tests of whole services wait a lot for other processes.
WORKERS = $(shell $(PYTHON) -c 'import os; print(min(4, (os.cpu_count() or 1) + 1))')
PYTEST = $(BIN)/pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder
junit = $(if $(REPORTS),--junitxml=$(REPORTS)/$(1).xml)
# The levels of the pyramid, each a folder of assets_tests and a marker of pytest. Those that test the core measure its coverage.
CORE_LEVELS := unit contract model
OTHER_LEVELS := data assets dbt integration loop faults
LEVELS := $(CORE_LEVELS) $(OTHER_LEVELS)
# Per cent of the core's lines, and of its branches, that the tests of CORE_LEVELS must reach.
COVERAGE_FLOOR := 95
COVERAGE := .coverage.json
COMPILE = $(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --quiet
# Compile at install: with bytecode switched off, every process would compile every import again (2 to 3 times as slow).
export UV_COMPILE_BYTECODE := 1
export UV_NO_PROGRESS := 1

.PHONY: help install demo dev test test-fast $(LEVELS:%=test-%) test-core smoke check lint types imports sql definitions rules promtool workflows lock sbom audit clean

help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

install: $(VENV)/.installed ## Install the locked environment into .venv

$(VENV)/.installed: requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "boucle needs Python 3.11: install it, or say make PYTHON=/path/to/python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@echo "Installing the locked environment into $(VENV) (1.3 GB, about a minute) ..."
	@$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m compileall -q platform serving
	@touch $@

demo: install ## Replay the real history through the whole loop (four to six minutes)
	@$(BIN)/boucle demo $(ARGS)

dev: install ## Dagster UI, MLflow UI and API; one Ctrl-C ends all
	@$(BIN)/boucle dev $(ARGS)

test: install ## What must hold: checks, unit, contract, data, model, assets, dbt, integration, loop, faults
	@echo "Checks beside unit, contract and model tests; each says what it found when it has ended ..."
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=target test-core check
	$(PYTEST) -m "not nightly" $(OTHER_LEVELS:%=assets_tests/%) $(call junit,others) $(ARGS)

test-core: install promtool ## Unit, contract and model tests, with the coverage of the core
	$(PYTEST) -m "not nightly" $(CORE_LEVELS:%=assets_tests/%) --cov --cov-report=json:$(COVERAGE) $(call junit,core) $(ARGS)
	$(BIN)/python .ci/coverage_floor.py $(COVERAGE) $(COVERAGE_FLOOR)

test-contract: promtool
$(LEVELS:%=test-%): test-%: install # One level: make test-unit, test-contract, test-data, test-model, test-assets, test-dbt, test-integration, test-loop, test-faults
	$(PYTEST) assets_tests/$* $(call junit,$*) $(ARGS)

test-fast: install promtool ## What is fast and stable: unit, contract, data, model gates, assets
	$(BIN)/pytest -m "not integration and not loop" $(CORE_LEVELS:%=assets_tests/%) assets_tests/data assets_tests/assets $(ARGS)

smoke: install ## Build the images, start the stack of compose.yaml, send one turn of the loop through it (minutes)
	$(BIN)/pytest -m smoke assets_tests/smoke $(call junit,smoke) $(ARGS)

check: lint types imports sql definitions rules workflows ## ruff, mypy, import-linter, sqlfluff, dbt parse, Dagster definitions, alert rules, workflows

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy platform/boucle platform/boucle_adapters platform/boucle_platform platform/boucle_cli serving/boucle_serving benchmarks

imports: install
	$(BIN)/lint-imports

sql: install
	$(BIN)/sqlfluff lint -q dbt_features/models dbt_features/tests
	$(BIN)/boucle doctor --only dbt

definitions: install
	BOUCLE_HOME=$${BOUCLE_HOME:-.boucle} DAGSTER_DISABLE_TELEMETRY=yes $(BIN)/dagster definitions validate -w workspace.yaml
	cd platform && BOUCLE_HOME=$${BOUCLE_HOME:-../.boucle} ../$(BIN)/dg check defs
	cd platform && BOUCLE_HOME=$${BOUCLE_HOME:-../.boucle} ../$(BIN)/dg list defs | grep -q repurchase/production_alias

promtool: install
	@.ci/promtool $(BIN)

rules: promtool ## promtool: configuration, alert rules, and their unit tests
	cd platform/deploy/prometheus && $(abspath $(BIN))/promtool check config prometheus.yml local.yml >/dev/null
	cd platform/deploy/prometheus && $(abspath $(BIN))/promtool test rules tests/*.yml

workflows: install ## Schema of the workflows, actionlint with shellcheck, zizmor
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-actions .github/actions/*/action.yml
	$(BIN)/actionlint -shellcheck $(BIN)/shellcheck -pyflakes ""
	$(BIN)/zizmor --offline --no-progress --quiet --persona pedantic --config .github/zizmor.yml .github

sbom: install ## Bills of materials (CycloneDX) of the two images, from their lock files
	mkdir -p $(or $(REPORTS),reports)
	$(BIN)/cyclonedx-py requirements requirements-platform.lock --pyproject pyproject.toml --of JSON -o $(or $(REPORTS),reports)/sbom-platform.json
	$(BIN)/cyclonedx-py requirements requirements-serving.lock --pyproject pyproject.toml --of JSON -o $(or $(REPORTS),reports)/sbom-serving.json

audit: install ## Known vulnerabilities of the locked packages; asks a database on the internet
	$(BIN)/pip-audit --require-hashes --disable-pip --requirement requirements.lock

lock: install ## Resolve the newest versions that fit into the lock files
	$(COMPILE) pyproject.toml --upgrade --all-extras -o requirements.lock
	$(COMPILE) pyproject.toml --extra serving --extra postgres --extra tracing -c requirements.lock -o requirements-serving.lock
	$(COMPILE) pyproject.toml --extra platform --extra tracing --extra examples -c requirements.lock -o requirements-platform.lock
	printf 'uv==$(UV_VERSION)\nhatchling\neditables\n' | $(COMPILE) - -c requirements.lock -o requirements-build.lock

clean: ## Remove the environment, the state and all caches
	rm -rf $(VENV) .boucle .boucle-[0-9]* .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache dbt_features/target dbt_features/logs logs reports .coverage .coverage.json
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
