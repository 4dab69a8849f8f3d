# Every target that runs anything uses .venv, which is made from requirements.lock when it is missing.

SCALE ?= auto
PYTHON ?= python3
# where make serve shows the pages; the next free one if another program has it
PORT ?= 8000
# make lock LOCKFLAGS=--upgrade takes newer versions
LOCKFLAGS ?=
# tests of the tools and pages, which run little of gmmlib
PAGES = pages.py links.py pdf.py text.py explorer.py site.py runner.py references.py interrupted_book.py

# make book CHAPTERS="08 a1": some chapters, by their names or by what stands before the first _
CHAPTERS ?=
# make test PYTESTFLAGS=-x hands more to pytest
PYTESTFLAGS ?=

# the changes that make mutants tries: every tenth of a function; '*' tries all, for hours
MUTANTS ?= *3

BIN = .venv/bin
BOOK = $(BIN)/python -m tools.book

# The kernels of all chapters and tests share one cache of compiled code.
export NUMBA_CACHE_DIR = $(CURDIR)/_build/numba

# $(1) chooses tests by their marks; with CHAPTERS only the references of these are run again.
# Processes share the cores, so each has one thread for its products: more would spin while they wait.
define run_tests
@$(BIN)/ruff check --quiet .
@$(BIN)/ruff format --check .
@OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --nbval --nbval-current-env \
	--nbval-sanitize-with tests/sanitize.cfg -p tools.figures --durations=10 -m $(1) \
	--chapters '$(CHAPTERS)' $(PYTESTFLAGS) tests
endef

.PHONY: help book html pdf serve freeze export test test-all validate reproducible mutants coverage audit bench peers lock env clean
.DEFAULT_GOAL := help

help: ## print this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1|/p' Makefile | awk -F'|' '{ printf "make %-12s %s\n", $$1, $$2 }'
	@echo "SCALE=$(SCALE) (auto, paper or sample); PYTHON=$(PYTHON) makes the environment"
	@echo 'CHAPTERS="08 a1" limits book, freeze, test, validate and reproducible; PYTESTFLAGS=-x goes to pytest'

book: .venv/.complete ## run every stale chapter at SCALE and render _build/<scale>/html
	@$(BOOK) book --scale $(SCALE) $(CHAPTERS)

html: .venv/.complete ## render the published notebooks into _build/published/html; runs nothing
	@$(BOOK) html

pdf: .venv/.complete ## print the published notebooks as one PDF, _build/published/book.pdf; needs chromium
	@$(BOOK) pdf

serve: .venv/.complete ## show the published pages at http://localhost:8000, or at PORT
	@$(BOOK) serve --port '$(PORT)'

freeze: .venv/.complete ## make the runs at SCALE the stored references
	@$(BOOK) freeze --scale $(SCALE) $(CHAPTERS)

export: .venv/.complete ## write the published numbers (JSON, CSV) and figures (PNG; no SVG is stored) into _build/export
	@$(BOOK) export

test: .venv/.complete ## style, unit tests, and the small-scale references run again and compared
	$(call run_tests,"not slow")

test-all: .venv/.complete ## the same with the long forms of the tests: more faults, more random inputs
	$(call run_tests,"slow or not slow")

validate: .venv/.complete ## run the references of SCALE again and compare text and figures
	@$(BOOK) validate --scale $(SCALE) $(CHAPTERS)

reproducible: .venv/.complete ## run the sample's book on other kernels, threads and caches; compare every digit
	@$(BOOK) reproducible $(CHAPTERS)

coverage: .venv/.complete ## list the lines of gmmlib that no test runs, those of compiled code included
	@$(BIN)/coverage run --source gmmlib -m pytest -q $(addprefix --ignore tests/test_,$(PAGES)) tests
# Compiled lines are not seen; here they are run as Python.
	@NUMBA_DISABLE_JIT=1 $(BIN)/coverage run --append --source gmmlib -m pytest -q tests/test_kernels.py
	@$(BIN)/coverage report --show-missing --skip-covered

mutants: .venv/.complete ## change the numerical code in a thousand places; does a test notice each?
	@$(BIN)/python -m venv _build/mutmut
	@_build/mutmut/bin/python -m pip install --quiet --disable-pip-version-check mutmut
# It needs what the tests need: the packages of .venv stand behind its own.
	@echo "$$($(BIN)/python -c 'import site; print(*site.getsitepackages())')" \
		> "$$(_build/mutmut/bin/python -c 'import site; print(*site.getsitepackages())')/project.pth"
	@_build/mutmut/bin/mutmut run '$(MUTANTS)'
	@_build/mutmut/bin/mutmut results | sed '/not checked/d'

audit: .venv/.complete ## look the lock up among known vulnerabilities; needs a network
# --strict: what could not be looked up has not passed.
	@$(BIN)/python -m venv _build/audit
	@_build/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	@_build/audit/bin/pip-audit --strict -r requirements.lock --require-hashes --disable-pip

bench: .venv/.complete ## time each compiled kernel beside its numpy form
	@$(BIN)/python -m tools.bench

peers: .venv/.complete ## time peers from other packages beside the library; installs them into _build/peers
	@$(BIN)/python -m venv _build/peers
# They run beside the library: the packages of .venv stand behind their own.
	@echo "$$($(BIN)/python -c 'import site; print(*site.getsitepackages())')" \
		> "$$(_build/peers/bin/python -c 'import site; print(*site.getsitepackages())')/project.pth"
# One that does not install has a row that says why, and the others are timed.
	@for peer in gmmx cplx-gmm; do \
		_build/peers/bin/python -m pip install --quiet --disable-pip-version-check $$peer \
			2> _build/peers/$$peer.log || true; \
	done
	@_build/peers/bin/python -m tools.bench_peers

lock: .venv/.complete ## write requirements.lock again from pyproject.toml
	$(BIN)/uv pip compile pyproject.toml --extra book --extra dev --universal --python-version 3.11 \
		--fork-strategy fewest --generate-hashes --no-emit-index-url --no-emit-find-links --no-header \
		--no-annotate --quiet $(LOCKFLAGS) -o requirements.lock

env: .venv/.complete ## make .venv from requirements.lock

# The stamp's last line names the folder that .venv was made for; in a copied or moved checkout it is made again.
ifneq ($(shell tail -n 1 .venv/.complete 2>/dev/null),$(CURDIR))
.PHONY: .venv/.complete
endif

.venv/.complete: requirements.lock pyproject.toml tools/bootstrap.py
	@$(PYTHON) tools/bootstrap.py

clean: ## remove _build and all caches; .venv stays
	rm -rf _build build dist *.whl .pytest_cache .ruff_cache .hypothesis mutants .coverage
	find gmmlib tests tools book -name __pycache__ -prune -exec rm -rf {} +
	find book tests -name .ipynb_checkpoints -prune -exec rm -rf {} +
