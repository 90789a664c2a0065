# What a newcomer and the build machine call. `make help` lists the targets.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

LISTEN ?= 127.0.0.1:8080
DATA ?= ./data
SIZE ?= ci
# Extra arguments of one run, for example: make test ARGS='-k pixel', make bench ARGS=--quick, make trust ARGS='--only T3'
ARGS ?=

# Some containers tell Python to keep no compiled modules; then each of the many starts of the program compiles it all.
export PYTHONDONTWRITEBYTECODE =

BIN := .venv/bin
VENV_INPUTS := pyproject.toml scripts/venv.sh

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-8s %s\n", $$1, $$2 }'

# One stamp a set of packages: a second call of make installs nothing.
.venv/.installed-run: requirements.txt requirements-build.txt $(VENV_INPUTS)
	@echo "installing the locked dependencies into .venv"
	@scripts/venv.sh .venv requirements.txt requirements-build.txt
	@touch $@

.venv/.installed-dev: requirements-dev.txt clients/python/pyproject.toml .venv/.installed-run
	@echo "installing the locked test dependencies into .venv"
	@scripts/venv.sh .venv requirements-dev.txt
	@touch $@

.venv-bench/.installed: bench/peers/requirements.txt scripts/venv.sh
	@echo "installing the benchmark's peer into .venv-bench"
	@scripts/venv.sh .venv-bench bench/peers/requirements.txt
	@touch $@

.PHONY: run
run: .venv/.installed-run ## start the server with an example campaign (LISTEN=host:port, DATA=directory)
	@exec $(BIN)/postbackd serve --example --data $(DATA) --listen $(LISTEN) --deliver-ranges 127.0.0.1 --deliver-ports 80,443,8090 $(ARGS)

.PHONY: test
test: .venv/.installed-dev ## run the tests; says which were skipped, and why
	@$(BIN)/python -m pytest -q -rs --numprocesses 3 --dist worksteal tests --ignore=tests/trust $(ARGS)

.PHONY: check
check: .venv/.installed-dev ## format, lint, types, directions of imports
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/mypy --config-file clients/python/pyproject.toml
	@$(BIN)/lint-imports --no-logo

.PHONY: bench
bench: .venv/.installed-dev .venv-bench/.installed ## measure against nginx and against a FastAPI service (about seven minutes; ARGS=--quick)
	@$(BIN)/python -m bench $(ARGS)

.PHONY: trust
trust: .venv/.installed-dev ## try to break the promises (SIZE=ci|nightly|release)
	@$(BIN)/python -m tests.trust --size $(SIZE) --jobs $(if $(filter ci,$(SIZE)),3,1) $(ARGS)

.PHONY: lock
lock: ## resolve the dependencies again and write the lock files (needs uv)
	@scripts/lock.sh

.PHONY: clean
clean: ## remove what make made; ./data stays
	rm -rf .venv .venv-bench .venv.lock build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage htmlcov
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
