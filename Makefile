# Every target works from a fresh clone: the virtual environment is made, and servers are installed, when they are needed.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

# The demo indexes the clone itself unless told otherwise.
REPO ?= .
# What demo and up run on: postgresql or mongodb.
STORAGE ?= postgresql
MINUTES ?= 5
FUZZ_SECONDS ?= 60
SEED ?=
# For bench: fewer parts and rounds, tables of 2,000,000 rows too, MongoDB too, these parts alone.
QUICK ?=
LARGE ?=
MONGODB ?=
ONLY ?=
# Arguments for pytest, for example: make test TESTS='tests/unit -k ranges'
TESTS ?=

BIN := .venv/bin
STACK := $(BIN)/python -m provgate_stack
export REPO STORAGE

.PHONY: help
help: ## Say what the targets do
	@sed -n 's/^\([a-z-]*\):.* ## \(.*\)/\1\t\2/p' Makefile | expand -t 16

.PHONY: demo
demo: venv ## Index a git repository (REPO=path, default: this clone) through a temporary stack and ask about a file of it
	@$(STACK) demo --repo "$$REPO" --storage "$$STORAGE"

.PHONY: up
up: venv ## Start RabbitMQ, PostgreSQL (or STORAGE=mongodb), workers and gateway, and keep them running
	@$(STACK) up --storage "$$STORAGE"

.PHONY: down
down: venv ## Stop what `make up` started and remove its data
	@$(STACK) down

.PHONY: test
test: venv ## Run the tests on real servers, all but the long ones (TESTS=arguments for pytest, SEED=number repeats a run)
	@$(STACK) install
	@TEST_SEED=$(SEED) $(BIN)/pytest -m "not long" $(TESTS)

.PHONY: test-faults
test-faults: venv ## Run the whole fault suite, the long tests too
	@$(STACK) install
	@TEST_SEED=$(SEED) $(BIN)/pytest tests/faults $(TESTS)

.PHONY: coverage
coverage: venv ## Run the tests and print which lines and branches they miss, in gateways and workers too (TESTS=as for test)
	@$(STACK) install
	@$(BIN)/coverage erase
	@TEST_SEED=$(SEED) $(BIN)/coverage run -m pytest -m "not long" $(TESTS)
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report --show-missing --skip-covered --skip-empty

.PHONY: soak
soak: venv ## Write and read for MINUTES=5 while faults are drawn at random (SEED=number repeats a run)
	@$(STACK) install
	@SOAK_MINUTES=$(MINUTES) SOAK_SEED=$(SEED) $(BIN)/pytest tests/faults/test_soak.py -s

.PHONY: fuzz
fuzz: venv ## Feed damaged packages to the codec for FUZZ_SECONDS=60 (SEED=number repeats a run)
	@FUZZ_SECONDS=$(FUZZ_SECONDS) FUZZ_SEED=$(SEED) $(BIN)/pytest tests/fuzz -s

.PHONY: lint
lint: venv ## Check style and format
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check

.PHONY: types
types: venv ## Check types
	@$(BIN)/mypy

.PHONY: protos
protos: venv ## Generate the stubs of the protos anew
	@stack/generate_stubs.sh protos

.PHONY: check-protos
check-protos: venv ## Check the protos' style, that they break no client, and that the stubs are theirs
	@$(BIN)/buf lint
	@stack/check_breaking.sh
	@stack/check_stubs.sh

.PHONY: baseline
baseline: venv ## For the commit of a release: make the protos as they are the ones that no later change may break
	@$(BIN)/buf build --exclude-source-info --output protos/baseline/released.binpb

.PHONY: bench
bench: venv ## Measure how fast it is, and what it is compared with (QUICK=1, LARGE=1, MONGODB=1, ONLY='contents reads')
	@$(STACK) install
	@$(BIN)/python -m bench $(if $(QUICK),--quick) $(if $(LARGE),--large) $(if $(MONGODB),--mongodb) \
		$(foreach part,$(ONLY),--only $(part))

.PHONY: clean
clean: ## Stop what runs, and remove the virtual environment and all that was generated
	@if [ -x $(BIN)/python ]; then $(STACK) down; fi
	@rm -rf .venv .stack .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: venv
venv:
	@stack/bootstrap.sh
