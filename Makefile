# Every target makes what it needs. Nothing has to be installed first but Python 3.11 or newer (and make).
#   make demo                      PYTHON=python3.13 make test
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

# Where it is set, each of the hundred Python processes of a run compiles all that it imports again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo up test journeys clients chaos check format hooks openapi reference client bench images lock clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1	\2/p' Makefile | expand -t 16

demo: $(INSTALLED) ## run a real pipeline through gateway, broker and workers, and show it
	@$(BIN)/python -m cli.demo

up: $(INSTALLED) ## start everything on 127.0.0.1 and keep it running
	@$(BIN)/celeriac up

# More processes than two cores: half of the tests wait for services, which they stop, kill and start.
test: $(INSTALLED) ## run the tests; ARGS go to pytest: make test ARGS="-k ledger"
	$(BIN)/python -m pytest --numprocesses 6 --dist loadfile --no-loadscope-reorder -m "not journey" $(ARGS)

journeys: $(INSTALLED) ## run the long tests: every page of docs, the demo, packages and types in environments of their own
	$(BIN)/python -m pytest --numprocesses 3 --dist load -m journey $(ARGS)

clients: $(INSTALLED) ## generate, compile and use a client with each generator of docs/clients.md; ARGS=Java
	@$(BIN)/python -m tests.clients $(ARGS)

chaos: $(INSTALLED) ## hurt real processes for about 25 minutes, print what came of it; SCENARIO=workers SCALE=0.1
	@$(if $(SCENARIO),true,FUZZED=5000 $(BIN)/python -m pytest -q -n 0 tests/worker/upkeep/test_intake.py -k mutation)
	@$(BIN)/python -m tests.chaos $(SCENARIO) $(if $(SCALE),--scale $(SCALE))

check: $(INSTALLED) ## formatting, lint (Python and Lua), spelling, types, import rules, drift of what is written by programs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/codespell
	$(BIN)/mypy
	$(BIN)/lint-imports
	@if command -v luacheck >/dev/null; then \
	  luacheck --quiet --no-color shared/ledger/script && $(BIN)/python -m shared.ledger.script | luacheck --quiet --no-color --no-max-line-length -; \
	elif [ "$$CI" = true ]; then echo "luacheck is missing: install the Debian package lua-check" >&2; exit 1; \
	else echo "luacheck is missing, the ledger's script is not checked: install the Debian package lua-check" >&2; fi
	@fresh=$$(mktemp) && trap 'rm -f "$$fresh"' EXIT && $(BIN)/python -m api.document "$$fresh" \
	  && diff -u openapi.json "$$fresh" || { echo "openapi.json is not what the code says: make openapi" >&2; exit 1; }
	@fresh=$$(mktemp) && trap 'rm -f "$$fresh"' EXIT && $(BIN)/python -m deploy.reference "$$fresh" \
	  && diff -u docs/authors/reference.md "$$fresh" \
	  || { echo "docs/authors/reference.md is not what the docstrings say: make reference" >&2; exit 1; }
	@fresh=$$(mktemp -d) && trap 'rm -rf "$$fresh"' EXIT && $(BIN)/python -m deploy.threads "$$fresh" \
	  && for made in "$$fresh"/*; do diff -u "celeriac/client/$$(basename "$$made")" "$$made" \
	  || { echo "this is not made of the module that waits in tasks: make client" >&2; exit 1; }; done

format: $(INSTALLED) ## format, and fix what lint can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

hooks: $(INSTALLED) ## format, lint and spell-check what is committed, before each commit
	$(BIN)/pre-commit install

openapi: $(INSTALLED) ## write openapi.json from the code
	$(BIN)/python -m api.document openapi.json

reference: $(INSTALLED) ## write docs/authors/reference.md from the docstrings
	$(BIN)/python -m deploy.reference docs/authors/reference.md

client: $(INSTALLED) ## write the modules of celeriac/client that wait in threads from those that wait in tasks
	$(BIN)/python -m deploy.threads celeriac/client

bench: $(INSTALLED) ## measure every goal of docs/performance.md beside its peer, about 8 minutes; PEERS=1 ROUNDS=5 PARTS=worker,growth
	PEERS=$(PEERS) ROUNDS=$(or $(ROUNDS),5) PARTS=$(PARTS) $(BIN)/python -m bench

images: $(INSTALLED) ## build every image, print the sizes, run a job of each family in their contents
	$(BIN)/python -m deploy.images

lock: $(INSTALLED) ## write requirements/*.txt from pyproject.toml; UPGRADE=1 takes the newest
	PATH="$(CURDIR)/$(BIN):$$PATH" UPGRADE=$(UPGRADE) requirements/lock

clean: ## remove the environment and every cache
	rm -rf .venv .coverage* .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist *.egg-info

# pip alone would do; uv is ten times as fast. Where uv reaches no index (it reads none of pip's settings), pip does it.
$(INSTALLED): requirements/dev.txt requirements/uv.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Celeriac needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements/dev.txt \
	  || $(BIN)/python -m pip install --quiet --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@touch $@
