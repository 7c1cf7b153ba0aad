# The same commands for people and for CI. All that is needed is python3 (3.11 or newer) and make:
# whatever else there is to install goes into the virtual environment .venv.
#
#   make run        the sandbox: takes mail on 127.0.0.1:2525, keeps it in ./elemta-data
#   make test       every test: units, fuzz (short), scenarios (those whose peers are installed)
#   make check      what a change must pass; cheapest first
#   make fuzz       the fuzz tests, for as long as you like (deep profile)
#   make mutants    seeds bugs and demands that the tests catch each
#   make scenarios  the daemon as a process, with real peers
#   make bench      Elemta beside its peers, on this machine
#   make lock       new constraints files, after a change of pyproject.toml
#   make clean      away with what the others made

VENV := .venv
BIN := $(VENV)/bin
# Which Python makes the virtual environment; the first that is new enough, unless you say.
PYTHON :=
# How many processes run the tests.
JOBS := 2
# Scenarios wait for processes and for delays more than they compute.
SCENARIO_JOBS := 3

PYTEST := $(BIN)/python -m pytest -ra
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install
ROOMS := queue protocol message

# Some images set it. Then each process compiles what it imports: pytest its plugins, which it
# rewrites (2 s), a daemon the whole of Elemta (1 s).
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help run test check format lint types imports types-and-wheel unit others fuzz-short coverage \
	scenarios wheel fuzz mutants bench lock clean

help:
	@sed -n 's/^#   make/make/p' Makefile

run: $(VENV)/run.stamp
	$(BIN)/elemta serve --sandbox $(ARGS)

test: others fuzz-short coverage scenarios

check: format lint imports types-and-wheel others fuzz-short coverage

# --- what `check` and `test` are made of -------------------------------------------------------

format: $(VENV)/dev.stamp
	$(BIN)/ruff format --check .

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .

imports: $(VENV)/dev.stamp
	$(BIN)/lint-imports

types: $(VENV)/dev.stamp
	@printf '%s\n' 'mypy elemta examples' pyright | xargs -P $(JOBS) -I CHECKER sh -c '$(BIN)/CHECKER'

# Beside each other: the one computes, the other mostly waits for what it installs.
types-and-wheel: $(VENV)/dev.stamp
	@printf '%s\n' types wheel | xargs -P $(JOBS) -I TARGET $(MAKE) --no-print-directory TARGET

unit: $(VENV)/dev.stamp
	$(PYTEST) -n $(JOBS) tests --ignore=tests/scenarios $(ARGS)

# What `coverage` leaves of them: so `check` runs each once.
others: $(VENV)/dev.stamp
	$(PYTEST) -n $(JOBS) -m 'large or not covered' tests --ignore=tests/scenarios

fuzz-short: $(VENV)/dev.stamp
	HYPOTHESIS_PROFILE=ci $(PYTEST) -n $(JOBS) fuzz $(ARGS)

# Each of these rooms is covered by its own tests: a line that another room's test happens to run
# does not count. Tests of very much mail are left out: it is enough that `others` runs them.
# The queue's take longest, and are halved.
coverage: $(VENV)/dev.stamp
	@rm -f .coverage.*
	@printf '%s\n' 'queue a-l' 'queue m-z' 'protocol a-z' 'message a-z' | \
		xargs -P $(JOBS) -L 1 sh -c 'COVERAGE_FILE=.coverage.$$0.$$1 $(BIN)/coverage run \
			-m pytest -q -p no:cacheprovider -m "not large" tests/$$0/test_[$$1]*.py'
	@set -e; for room in $(ROOMS); do \
		export COVERAGE_FILE=.coverage.$$room; \
		$(BIN)/coverage combine -q .coverage.$$room.*; \
		$(BIN)/coverage report --include="elemta/$$room/*" --fail-under=100; \
	done

scenarios: $(VENV)/dev.stamp
	$(PYTEST) -n $(SCENARIO_JOBS) --dist worksteal tests/scenarios $(ARGS)

# Built, installed into a virtual environment elsewhere, and tried there.
wheel: $(VENV)/dev.stamp
	rm -rf build/wheel
	$(BIN)/python -m build --no-isolation --outdir build/wheel . > /dev/null
	packaging/smoke $(BIN)/python build/wheel/*.whl constraints-build.txt constraints.txt

# --- by hand -----------------------------------------------------------------------------------

fuzz: $(VENV)/dev.stamp
	HYPOTHESIS_PROFILE=deep $(PYTEST) -n $(JOBS) fuzz $(ARGS)

mutants: $(VENV)/dev.stamp
	$(BIN)/python fuzz/mutants.py $(ARGS)

bench: $(VENV)/dev.stamp
	$(BIN)/python -m bench $(ARGS)

# The two "no-emit" options keep what this machine installs from out of the files.
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" $(UPGRADE)

lock: $(VENV)/dev.stamp
	$(LOCK) pyproject.toml --group build --output-file constraints.txt
	$(LOCK) pyproject.toml --group build --group dev --constraints constraints.txt \
		--output-file constraints-dev.txt
	$(LOCK) --group build --constraints constraints.txt --output-file constraints-build.txt

clean:
	rm -rf $(VENV) build dist .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache \
		.import_linter_cache .hypothesis

# --- the virtual environment -------------------------------------------------------------------

# Some libraries have no wheels. They are built by these tools, whose hashes are known, and not by
# what pip would fetch for each of them.
$(VENV)/build.stamp: constraints-build.txt | $(BIN)/python
	$(PIP) --require-hashes --only-binary :all: -r constraints-build.txt
	@touch $@

$(VENV)/run.stamp: constraints.txt pyproject.toml $(VENV)/build.stamp
	$(PIP) --require-hashes --no-build-isolation -r constraints.txt
	$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

# Test suites of libraries are in their source distributions alone.
$(VENV)/dev.stamp: constraints-dev.txt pyproject.toml $(VENV)/build.stamp
	$(PIP) --require-hashes --no-build-isolation --no-compile -r constraints-dev.txt
	$(PIP) --no-deps --no-build-isolation -e .
	@rm -rf $(VENV)/suites
	sed -n '/^pyspf==/,/[^\\]$$/p; /^dkimpy==/,/[^\\]$$/p' constraints-dev.txt > $(VENV)/suites.txt
	$(BIN)/python -m pip --disable-pip-version-check --quiet download --require-hashes --no-deps \
		--no-binary :all: --no-build-isolation -d $(VENV)/suites -r $(VENV)/suites.txt
	@touch $@ $(VENV)/run.stamp

$(BIN)/python:
	@set -e; found=; \
	for python in $(or $(PYTHON),python3 python3.13 python3.12 python3.11); do \
		"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
		found=$$python; \
		"$$python" -c 'import ensurepip, venv' 2>/dev/null || continue; \
		"$$python" -m venv $(VENV); \
		exit 0; \
	done; \
	if [ -n "$$found" ]; then \
		echo "$$found cannot make a virtual environment: it lacks ensurepip." >&2; \
		echo "On Debian and Ubuntu: apt-get install python3-venv" >&2; \
	else \
		echo "Elemta needs Python 3.11 or newer; $(or $(PYTHON),python3) is" \
			"$$($(or $(PYTHON),python3) --version 2>&1 || true)." >&2; \
		echo "If there is one elsewhere: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; \
	fi; \
	exit 1
