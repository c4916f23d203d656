# Every target works in a fresh clone: it makes the virtual environment and installs the servers that it needs.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

# The repository that the demo indexes.
REPO ?= .
# The storage of demo and up: postgresql or mongodb.
STORAGE ?= postgresql
MINUTES ?= 5
FUZZ_SECONDS ?= 60
SEED ?=
# For bench: fewer parts and rounds; also tables of 2,000,000 rows; also MongoDB; only these parts.
QUICK ?=
LARGE ?=
MONGODB ?=
ONLY ?=
# Arguments for pytest, for example: make test TESTS='tests/unit -k ranges'
TESTS ?=
# For test: how many processes run tests side by side, each on servers of its own; 0 is for --pdb and -s. On a broker that
# exists they would share its virtual host.
JOBS ?= $(if $(PROVGATE_AMQP_URL),0,2)

BIN := .venv/bin
STACK := $(BIN)/python -m provgate_stack
export REPO STORAGE

.PHONY: help
help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.* ## \(.*\)/\1\t\2/p' Makefile | expand -t 16

.PHONY: demo
demo: venv ## Index a git repository (REPO=path, default: this clone) through a temporary stack, and ask about one of its files
	@$(STACK) demo --repo "$$REPO" --storage "$$STORAGE"

.PHONY: up
up: venv ## Start RabbitMQ, PostgreSQL (or STORAGE=mongodb), workers and gateway, and keep them running
	@$(STACK) up --storage "$$STORAGE"

.PHONY: down
down: venv ## Stop the stack of `make up` and remove its data
	@$(STACK) down

.PHONY: test
test: venv ## Run the tests, except the long ones, on real servers (TESTS=arguments for pytest, JOBS=2, SEED=number repeats a run)
	@$(STACK) install
	@TEST_SEED=$(SEED) $(BIN)/pytest -m "not long" --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder $(TESTS)

.PHONY: test-faults
test-faults: venv ## Run the whole fault suite, with the long tests
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
soak: venv ## Write and read for MINUTES=5 under random faults (SEED=number repeats a run)
	@$(STACK) install
	@SOAK_MINUTES=$(MINUTES) SOAK_SEED=$(SEED) $(BIN)/pytest tests/faults/test_soak.py -s

.PHONY: fuzz
fuzz: venv ## Decode damaged packages for FUZZ_SECONDS=60 (SEED=number repeats a run)
	@FUZZ_SECONDS=$(FUZZ_SECONDS) FUZZ_SEED=$(SEED) $(BIN)/pytest tests/fuzz -s

.PHONY: lint
lint: venv ## Check style and format
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check

.PHONY: types
types: venv ## Check types
	@$(BIN)/mypy

.PHONY: protos
protos: venv ## Generate the stubs from the protos
	@stack/generate_stubs.sh protos

.PHONY: check-protos
check-protos: venv ## Check the protos' style, their compatibility with the last release, and the generated stubs
	@$(BIN)/buf lint
	@stack/check_breaking.sh
	@stack/check_stubs.sh

.PHONY: baseline
baseline: venv ## For the commit of a release: save the protos as the baseline for compatibility
	@$(BIN)/buf build --exclude-source-info --output protos/baseline/released.binpb

.PHONY: bench
bench: venv ## Measure throughput, latency, memory and CPU time (QUICK=1, LARGE=1, MONGODB=1, ONLY='contents reads')
	@$(STACK) install
	@$(BIN)/python -m bench $(if $(QUICK),--quick) $(if $(LARGE),--large) $(if $(MONGODB),--mongodb) \
		$(foreach part,$(ONLY),--only $(part))

.PHONY: clean
clean: ## Stop the stack, and remove the virtual environment and all generated files
	@if [ -x $(BIN)/python ]; then $(STACK) down; fi
	@rm -rf .venv .stack .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: venv
venv:
	@stack/bootstrap.sh
