# Everything runs from .venv, which is made on first use and reused after.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
# Test workers take a core each; BLAS threads on top of them only get in each other's way.
BENCHMARKS := flower gram speed speed_peers sessions seats simulation additive pairwise ckks noise federation heads personal heads_leakage heads_inversion evaluation prototypes privacy private private_guard private_picture audits patients one_sum relations tune fedavg inversion gradient_prior leakage attack_processes mixtures sums_leakage hospitals regression logistic private_logistic layers layers_private layers_leakage rebuild
ONE_THREAD := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
# Many tests start processes, which take twice as long where each compiles every module again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test slow coverage nightly bench fuzz plans guards deaths docs commands licences matrix wheel check clean

demo: $(INSTALLED)
	$(BIN)/secure-afl demo

# Under five minutes on two cores. The tests of a file share what they train.
test: $(INSTALLED)
	$(ONE_THREAD) $(BIN)/python -m pytest --numprocesses auto --dist loadfile -m "not slow and not nightly"

# Real processes, many clients, statistics of many runs.
slow: $(INSTALLED)
	$(ONE_THREAD) $(BIN)/python -m pytest --numprocesses auto -m slow

# The fast tests again, at half the speed, for the lines that they reach.
coverage: $(INSTALLED)
	$(ONE_THREAD) $(BIN)/python -m pytest --numprocesses auto -m "not slow and not nightly" --cov --cov-report term:skip-covered

nightly: $(INSTALLED) fuzz plans slow coverage guards deaths

# Processes of a federation over Flower, killed one after the other: up to an hour, most of it waiting.
deaths: $(INSTALLED)
	$(ONE_THREAD) $(BIN)/python -m pytest --numprocesses auto -m nightly

# Sessions over posts that lose, repeat, reorder, delay and forget.
plans: $(INSTALLED)
	$(BIN)/python -m tests.kit.plans --plans 10000

fuzz: $(INSTALLED)
	$(BIN)/python -m tests.protocols.fuzz --messages 100000

# Each guard of the protocols is switched off in turn; fails if no test notices. About ten minutes.
guards: $(INSTALLED)
	$(ONE_THREAD) $(BIN)/python -m tests.kit.guards

# Figures into benchmarks/results, for the tables of the documents: hours on two cores.
bench: $(INSTALLED)
	for name in $(BENCHMARKS); do $(BIN)/python -m benchmarks.$$name || exit 1; done

# The documents as a site, into build/site; fails where a link leads nowhere.
docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

# All commands and flags, into docs/commands.md.
commands: $(INSTALLED)
	$(BIN)/python -m tools.commands

# The licences of all that users install, into docs/licences.md.
licences: $(INSTALLED)
	$(BIN)/python -m tools.licences

# Wheel and sdist in clean environments, for each Python found here, each extra, and the lowest
# versions: an hour and more, gigabytes. CELLS=core,lowest takes some of it.
CELLS ?= core,sdist,lowest,vision,dicom,tables,tune,lattice,flower,docs,bench,dev
matrix: $(INSTALLED)
	$(BIN)/python -m tools.matrix --cells $(CELLS)

# The wheel without any extra, in a clean environment of this Python: its commands, and a federation.
wheel: $(INSTALLED)
	$(BIN)/python -m tools.matrix --cells core --pythons $$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')

check: $(INSTALLED) docs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

$(INSTALLED): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "secure-afl needs Python 3.11 or newer; set PYTHON=…")'
	@echo 'Installing into .venv: 8 GB, 5 to 10 minutes.'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[vision,tables,tune,lattice,flower,dev,docs]'
	touch $@

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info
