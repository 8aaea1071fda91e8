# Set-up, main job, tests. `make help` lists the targets.
PYTHON ?= python3
ACCELERATOR ?= cpu
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready-$(ACCELERATOR)
BUSY := .venv-incomplete
PEERS := .venv-peers
NAME ?=
ARGS ?=
# Processes that the tests run in; each takes a file at a time, so that what a file shares is made once.
WORKERS ?= 2

.PHONY: help setup demo docs test torture lint format bench peers clean

help:
	@echo "make demo    set up, then run the main job on built-in data (report in demo/)"
	@echo "make test    set up, then run the tests, in two processes [WORKERS=2]"
	@echo "make torture kill, starve, feed garbage: docs/reliability.md [ARGS='--minutes 60', --quick, --all]"
	@echo "make lint    ruff and mypy"
	@echo "make format  let ruff rewrite the code"
	@echo "make docs    write docs/configuration.md from the code"
	@echo "make bench   list the benchmarks; make bench NAME=exact_topk [ARGS=--quick] runs one (--smoke: in seconds)"
	@echo "make peers   set up other libraries in an environment of their own, for the benchmarks against them"
	@echo "make clean   remove the environment and caches"
	@echo "ACCELERATOR=cuda installs the CUDA builds (of torch's default index and FBGEMM)"

setup: $(STAMP)

# A set-up that was interrupted leaves $(BUSY); the next one starts from an empty environment.
$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed; say which: make PYTHON=python3.11"; exit 1; }
	@if [ -e $(BUSY) ]; then echo "repairing an interrupted set-up"; rm -rf $(VENV); fi
	@touch $(BUSY)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock torch==2.13.0
ifeq ($(ACCELERATOR),cuda)
	sed 's/^fbgemm_gpu-cpu==/fbgemm-gpu==/' requirements.lock > $(VENV)/requirements.lock
else
	cp requirements.lock $(VENV)/requirements.lock
endif
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r $(VENV)/requirements.lock
	$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --no-deps -e .
	@rm -f $(BUSY) $(VENV)/.ready-*
	@touch $(STAMP)

demo: setup
	$(BIN)/recsys demo --out demo $(ARGS)

test: setup
	$(BIN)/pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

torture: setup
	PYTHONPATH=tests/torture:. $(BIN)/python tests/torture/torture.py --write docs/reliability.md $(ARGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: setup
	$(BIN)/python -m recsys.app.reference > docs/configuration.md

bench: setup
ifeq ($(NAME),)
	@ls tests/benchmarks/[a-z]*.py | xargs -n1 basename | sed 's/\.py$$//'
else
	PYTHONPATH=tests/benchmarks $(BIN)/python tests/benchmarks/$(NAME).py $(ARGS)
endif

peers: $(PEERS)/.ready $(PEERS)-retrieval/.ready

$(PEERS)/.ready: tests/benchmarks/peers.txt
$(PEERS)-retrieval/.ready: tests/benchmarks/peers_retrieval.txt
$(PEERS)/.ready $(PEERS)-retrieval/.ready:
	rm -rf $(@D)
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r $<
	@touch $@

clean:
	rm -rf $(VENV) $(PEERS) $(PEERS)-retrieval $(BUSY) .mypy_cache .ruff_cache .pytest_cache *.egg-info
