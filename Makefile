# Every target sets up what it needs by itself: a bare clone, Python 3.10 or newer and make are enough.

PYTHON ?= python3
VENV ?= .venv
OUTPUT ?= demo
FAST := not slow and not ros and not gpu
# Tests call programs of the environment, evo and feature-matcher, by their names.
PYTEST = PATH="$(abspath $(VENV))/bin:$$PATH" $(VENV)/bin/python -m pytest
INSTALLED := $(VENV)/.installed

.PHONY: help environment demo test test-all test-oldest lint bench config clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 16
	@echo
	@echo "PYTHON=python3.12 chooses the interpreter, VENV=folder where the environment is made."

demo: environment  ## render a scene into a bag, replay it, print the table and write demo/run/report.html
	$(VENV)/bin/feature-matcher demo --output $(OUTPUT)

test: environment  ## the tests that need neither ROS nor a GPU and take no minutes
	$(PYTEST) -m "$(FAST)"

test-all: $(INSTALLED)-all  ## every test, PyTorch's included; those that need a GPU or ROS are skipped without
	$(PYTEST)

test-oldest:  ## `test` with the oldest NumPy and OpenCV that are supported (Python 3.10 to 3.12)
	@$(MAKE) --no-print-directory test VENV=$(VENV)-oldest CONSTRAINTS="'numpy==1.26.*' 'opencv-python-headless==4.8.*'"

# Types are checked for Python 3.10, except where NumPy comes with types that are written for 3.12.
lint: environment  ## formatting, lint and types; needs Python 3.11 or newer
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy $$($(VENV)/bin/python -c 'import sys; print("--python-version=3.10" * (sys.version_info < (3, 12)))')

bench: environment  ## time of every stage at 640x480, on one core and on two
	$(VENV)/bin/feature-matcher bench

config: environment  ## write config/front_end.yaml from the defaults in the code
	$(VENV)/bin/python -c "from pathlib import Path; from feature_matcher_ros.config import to_yaml; from feature_matcher_ros.node_config import LiveConfig; \
	Path('config/front_end.yaml').write_text(to_yaml(LiveConfig()), encoding='utf-8')"

clean:  ## remove the environments, the caches and the demo
	rm -rf .venv .venv-oldest demo build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
	find feature_matcher_ros test -name __pycache__ -type d -prune -exec rm -rf {} +

environment: $(INSTALLED)
ifneq ($(origin PYTHON),file)
	@test "$$($(PYTHON) -V)" = "$$($(VENV)/bin/python -V)" || \
	  { echo "error: $(VENV) is of $$($(VENV)/bin/python -V), not of $$($(PYTHON) -V): run make clean, or name another VENV" >&2; exit 1; }
endif

# PYTHONPATH is left out, or pip would count what a sourced ROS 2 shell shows it as installed.
$(INSTALLED): setup.py setup.cfg
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "error: $(PYTHON) is missing or older than 3.10: name another one, e.g. make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { echo "error: no virtual environment could be made in $(VENV): on Debian and Ubuntu install python3-venv" >&2; exit 1; }
	@echo "Installing into $(VENV), once; this takes a few minutes ..."
	@PYTHONPATH= $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[dev]' $(CONSTRAINTS) || \
	  { echo "error: the installation failed, the reason stands above; the Python package index must be reachable" >&2; exit 1; }
	@touch $@

$(INSTALLED)-all: $(INSTALLED)
	@echo "Installing PyTorch, TensorRT and rerun as well ..."
	@PYTHONPATH= $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[dev,torch,engines,rerun]' $(CONSTRAINTS)
	@touch $@
