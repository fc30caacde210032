# The two commands of the README, and what they are made of.
PYTHON ?= python3
VENV ?= .venv
PREF = $(VENV)/bin/pref
PIP = $(VENV)/bin/python -m pip --disable-pip-version-check

.PHONY: quickstart test lint types slow clean

# Installs into .venv and runs the main job on the embedded simulator: no key, no network, no GPU.
quickstart: $(VENV)/installed
	$(PREF) run attributes $(ARGS)

# Installs what tests need and runs the tests.
test: $(VENV)/installed-dev
	$(VENV)/bin/python -m pytest -m "not slow" $(ARGS)

# Drills that take longer: kill -9 in the middle, real servers, byte-identical restarts.
slow: $(VENV)/installed-dev
	$(VENV)/bin/python -m pytest -m "slow and not alone" -n 2 --dist loadfile --durations=15 $(ARGS)
	$(VENV)/bin/python -m pytest -m "slow and alone" --durations=5 $(ARGS)

lint: $(VENV)/installed-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: $(VENV)/installed-dev
	$(VENV)/bin/mypy

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; set PYTHON=..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install --quiet -c constraints.txt -e .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(PIP) install --quiet -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache *.egg-info
