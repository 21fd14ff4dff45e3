# Every target does its own set-up in .venv; nothing is needed but Python 3.11 or 3.12 and make.
PYTHON ?= python3
VENV := .venv
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check --quiet
RUN := $(VENV)/bin/python -m understudy

.PHONY: setup setup-test demo test learn bench clean

setup: $(VENV)/.installed
setup-test: $(VENV)/.installed-test

$(VENV)/.made:
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 13) else f"understudy needs Python 3.11 or 3.12, found {v[0]}.{v[1]}; name one with: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "This Python cannot make environments; on Debian: apt install python3-venv" >&2; exit 1; }
	@touch $@

$(VENV)/.installed: requirements/lock.txt pyproject.toml | $(VENV)/.made
	@echo "Installing understudy into $(VENV) (about 1 GB, a few minutes) ..."
	$(PIP) install --require-hashes -r requirements/lock.txt
	$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.installed-test: requirements/lock-test.txt $(VENV)/.installed
	$(PIP) install --require-hashes -r requirements/lock-test.txt
	@touch $@

demo: setup
	$(RUN) demo

test: setup-test
	$(VENV)/bin/python -m ruff check understudy tests benchmarks
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not learning and not slow"

learn: setup-test          # the long checks: learning on real tasks, and every product for 100 steps; some hours
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "learning or slow"

bench: setup
	$(VENV)/bin/python benchmarks/speed.py

clean:
	rm -rf $(VENV) build dist
