# make demo   raw text to a published model on this machine, in minutes; make test   the fast tests
# Every target creates .venv first when it is missing or older than pyproject.toml.

PYTHON ?= python3
BIN := .venv/bin
STORE ?= pile-store
FOLDER ?= $(HOME)/corpus

.PHONY: install demo test check test-all test-kill test-kill-workers test-kill-filter-dedup test-outage captures ui clean

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

install: .venv/installed

demo: install
	$(BIN)/pile run demo --store $(STORE)

test: install
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m 'not e2e and not slow and not long and not gpu'

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/architecture

# The chain through Prefect, engines with several processes, and everything else that takes minutes.
test-all: install
	$(BIN)/python -m pytest -m 'not gpu'

# kill -9 at 20 random moments of a demo run, then compare with an undisturbed run: about half an hour.
test-kill: install
	$(BIN)/python tests/e2e/kill_at_random.py --kills 20

# kill -9 in each phase of filter and dedup, 20 times: about ten minutes.
test-kill-filter-dedup: install
	$(BIN)/python tests/e2e/kill_filter_dedup.py --kills 20

# kill -9 of single workers, 20 in all, in every stage that has any: about twenty minutes.
test-kill-workers: install
	$(BIN)/python tests/e2e/kill_workers.py --kills 20

# A store that is gone for a while in each stage, in two ways: about a quarter of an hour.
test-outage: install
	$(BIN)/python -m pytest tests/e2e/test_store_outage.py

# What a person sees on a terminal, as docs/terminal.md; needs tmux and some ten minutes. The folder is in the page.
captures: install
	$(BIN)/python tests/e2e/capture_terminal.py $(FOLDER)

# A Prefect server with its UI, workers and the deployments; Ctrl-C stops them.
ui: install
	$(BIN)/pile up --store $(STORE)

clean:
	rm -rf .venv
