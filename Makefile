# Everyday commands. `make help` lists them from the comments after `##`.

.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON := .venv/bin/python
STACK := $(PYTHON) scripts/stack.py
CODE := shared/src delta-writer/src api/src reconciliation/src scripts

.PHONY: help
help: ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## Install what is needed: Python packages, Java, Maven, Kafka and Debezium
	@scripts/setup-local.sh build

.PHONY: up
up: ## Start the whole platform and a sample pipeline (SAMPLE=0: without it; MONGODB_URI=…: on your own replica set)
	@scripts/setup-local.sh up

.PHONY: down
down: ## Stop every process of the platform; the data stays
	@scripts/teardown.sh

.PHONY: clean
clean: ## Stop the platform and delete its data (CACHE=1: the downloads too; FORCE=1: do not ask)
	@scripts/teardown.sh --clean

.PHONY: status
status: venv ## Ask every part to do its work once, and show what it says
	@$(STACK) status

.PHONY: logs
logs: venv ## Show the logs (PART=kafka: of one part)
	@$(STACK) logs $(PART)

.PHONY: query
query: venv ## Ask DuckDB about the tables (SQL="SELECT …" AS_OF=time|version FORMAT=csv|json|parquet OUTPUT=file EXPLAIN=1)
	@scripts/query-deltalake.sh $${AS_OF:+--as-of "$$AS_OF"} $${FORMAT:+--format "$$FORMAT"} $${OUTPUT:+--output "$$OUTPUT"} \
		$${EXPLAIN:+--explain} $${SQL:+"$$SQL"}

.PHONY: demo
demo: venv ## Stream half a minute of changes and compare both ends
	@$(PYTHON) scripts/demo.py

.PHONY: reconcile
reconcile: venv ## Compare tables with MongoDB (PIPELINE=shop, COLLECTIONS="orders", MODE=full|incremental|keys|counts)
	@test -r .local/endpoints.env || { echo "the stack is not running: run \`make up\`" >&2; exit 2; }
	@set -a; . .local/endpoints.env; set +a; \
	exec .venv/bin/cdc-reconciliation reconcile --mode "$${MODE:-full}" "$${PIPELINE:-shop}" $$COLLECTIONS

.PHONY: test
test: venv ## Unit and contract tests; needs no running platform
	@.venv/bin/pytest -m "(unit or contract) and not integration"

.PHONY: test-local
test-local: ## Every test but the soak, on the running platform; starts it when it is not up
	@scripts/setup-local.sh up --keep-sample
	@.venv/bin/pytest

.PHONY: lint
lint: venv ## Style, types, layering, security
	@.venv/bin/ruff check
	@.venv/bin/ruff format --check
	@.venv/bin/mypy $(CODE) bench tests/load tests/support tests/model tests/conftest.py
	@.venv/bin/lint-imports
	@.venv/bin/bandit --quiet --recursive --configfile pyproject.toml $(CODE)

.PHONY: format
format: venv ## Format the code and fix what can be fixed
	@.venv/bin/ruff format
	@.venv/bin/ruff check --fix

.PHONY: openapi
openapi: venv ## Write docs/api/openapi.yaml, the API's description, from the code
	@.venv/bin/cdc-control-plane openapi --output docs/api/openapi.yaml

.PHONY: bench
bench: venv ## Measure throughput and cost per change, beside delta-rs MERGE
	@$(PYTHON) -m bench.run

# Quick when requirements.lock has not changed.
.PHONY: venv
venv:
	@scripts/setup-local.sh venv
