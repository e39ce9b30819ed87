# Two commands matter: `make demo` and `make test`. Both set up what they need, in .venv, from the lock files.
PYTHON ?= python3
PORT ?= 8080
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test bench faults format check lock clean help

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 12

demo: $(VENV)/.run ## start the demo shop, its middle office's API and a server with real products on PORT
	@$(BIN)/endcap demo --port $(PORT)

test: $(VENV)/.dev ## run every check and test
	@$(BIN)/python -m pytest --numprocesses auto --dist loadfile

bench: $(VENV)/.dev ## measure the figures of the README's table, as ratios side by side in one run
	@$(BIN)/python -m tests.bench

faults: $(VENV)/.dev ## the long form of the fault tests: kills, full disks, planted faults
	@ENDCAP_FAULTS=full $(BIN)/python -m pytest tests/faults

check: $(VENV)/.dev ## formatting, lint, imports and types
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/lint-imports
	$(BIN)/mypy

format: $(VENV)/.dev ## format the code and mend what can be mended by itself
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

lock: $(VENV)/.dev ## resolve the pinned dependencies anew (needs uv)
	uv pip compile pyproject.toml --group build --extra postgres --extra cluster --extra export $(LOCK_OPTIONS) -o requirements.lock
	uv pip compile pyproject.toml --group build --group dev --extra postgres --extra cluster --extra export $(LOCK_OPTIONS) -o requirements-dev.lock

LOCK_OPTIONS := --universal --generate-hashes --python-version 3.11 --upgrade -q \
	--no-header --no-annotate --no-emit-index-url --no-emit-find-links

clean: ## remove the environment and every cache
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# uv where it is there, pip where it is not; the marker's date says whether the lock is newer than the environment.
$(VENV)/.run: requirements.lock pyproject.toml
	@$(MAKE) --no-print-directory environment LOCK=requirements.lock
	@touch $@

$(VENV)/.dev: requirements-dev.lock pyproject.toml
	@$(MAKE) --no-print-directory environment LOCK=requirements-dev.lock
	@touch $@ $(VENV)/.run

.PHONY: environment
environment:
	@echo "Setting up $(VENV) from $(LOCK) …"
	@if command -v uv >/dev/null 2>&1; then \
		test -x $(BIN)/python || uv venv --quiet --python "$$(command -v $(PYTHON))" $(VENV); \
		uv pip install --quiet --python $(BIN)/python --require-hashes -r $(LOCK) && \
		uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .; \
	else \
		test -x $(BIN)/python || $(PYTHON) -m venv $(VENV); \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(LOCK) && \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .; \
	fi
