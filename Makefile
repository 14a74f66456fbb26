# Each target sets up what it needs. PYTHON chooses the interpreter of a new .venv, JOBS the number of test processes.
PYTHON ?= python3
JOBS ?= 2

BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --retries 5 --constraint constraints.txt
export PIP_DEFAULT_TIMEOUT ?= 60

# A stamp says that .venv holds what pyproject.toml and constraints.txt ask for. An environment that does not start, or
# that was made for another folder, is made anew.
RUN_STAMP := .venv/.ready-to-run
RUN_EXTRAS := embedded
DEV_STAMP := .venv/.ready-to-develop
DEV_EXTRAS := embedded,hub,hpo,track,export,bench,dev

USABLE := $(BIN)/python -c 'import pip' 2>/dev/null && grep -qsF '$(CURDIR)/$(BIN)/' $(BIN)/pip
ifneq ($(shell $(USABLE) && echo yes),yes)
.PHONY: $(RUN_STAMP) $(DEV_STAMP)
endif

CHECK_PYTHON := import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed and this is " + sys.version.split()[0] + "; name another: make PYTHON=python3.12 ...")

# torch goes first and alone: the pin then takes the CPU build wherever pip is offered one.
define install
@$(USABLE) || { rm -rf .venv && $(PYTHON) -c '$(CHECK_PYTHON)' && $(PYTHON) -m venv .venv; }
@$(INSTALL) torch
@$(INSTALL) --editable '.[$(1)]'
endef

.DEFAULT_GOAL := help
.PHONY: help setup quickstart test test-all bench lint format schema clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

setup: $(DEV_STAMP) ## create .venv with everything for development

quickstart: $(RUN_STAMP) ## install what running needs, then train on the packaged sample and show the scores
	$(BIN)/manyhead quickstart --resume

test: lint ## lint, types and the quick tests
	$(BIN)/pytest -n $(JOBS)

test-all: lint ## the same, with the slow tests
	$(BIN)/pytest -n $(JOBS) --slow

bench: $(DEV_STAMP) ## measure speed, how cost grows, what faults do, and what going on after them costs, on this machine
	$(BIN)/python benchmarks/encoder.py
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/growth.py
	$(BIN)/python benchmarks/scoring.py
	$(BIN)/python benchmarks/experts.py
	$(BIN)/python benchmarks/surgery.py
	$(BIN)/python benchmarks/regularisers.py
	$(BIN)/python benchmarks/scale.py
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/faults.py
	$(BIN)/python benchmarks/resume.py

lint: $(DEV_STAMP) ## ruff and basedpyright
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/basedpyright

format: $(DEV_STAMP) ## let ruff mend and format the code
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

schema: $(DEV_STAMP) ## refresh schema/recipe.schema.json
	@mkdir -p schema
	$(BIN)/python -m manyhead.recipe.json_schema > schema/recipe.schema.json.new
	@mv schema/recipe.schema.json.new schema/recipe.schema.json

clean: ## remove .venv, caches and what was built; runs/ stays
	rm -rf .venv dist .pytest_cache .ruff_cache .hypothesis benchmarks/out
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Modules are compiled when first imported: sooner ready than compiling all of them.
$(RUN_STAMP): pyproject.toml constraints.txt
	@echo 'Setting up .venv to run manyhead (some minutes the first time) ...'
	$(call install,$(RUN_EXTRAS))
	@touch $@

# Here all are compiled at once, on all cores: the tests turn warnings into errors, and compiling a dependency may warn.
# A few dependencies carry files that are not meant to compile: failing there is no failure.
$(DEV_STAMP): pyproject.toml constraints.txt
	@echo 'Setting up .venv to develop manyhead (some minutes the first time) ...'
	$(call install,$(DEV_EXTRAS))
	@$(BIN)/python -m compileall -qq -j 0 .venv/lib || true
	@touch $(RUN_STAMP) $@
