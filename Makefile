# Two commands: `make run` shows what vestige does on the pictures of the starter kit, `make test` runs every check.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTEST_WORKERS ?= 2

# Two test workers on two cores: one computing thread each.
export OMP_NUM_THREADS ?= 1

.PHONY: run test lint docs clean browser

run: $(STAMP)
	rm -rf out/kit
	$(BIN)/vestige starter out/kit
	$(BIN)/vestige find out/kit/pictures -k out/kit/kit.key --out out/report --fresh
	@echo "Open out/report/report.html in a browser."

test: $(STAMP) lint browser
	$(BIN)/pytest -n $(PYTEST_WORKERS) --dist worksteal tests

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(STAMP)
	$(BIN)/vestige systems --markdown > docs/SYSTEMS.md
	$(BIN)/vestige systems --pages docs/systems
	$(BIN)/python -c "from pathlib import Path; from vestige.app.verbs.systems_pages import refresh_readme; refresh_readme(Path('README.md'), Path('results'))"

# The report is tested in a real browser where one can be had; without one those tests say why they skip.
browser:
	@command -v chromium >/dev/null 2>&1 || command -v google-chrome >/dev/null 2>&1 || \
	  { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1 && \
	    { apt-get update -qq && apt-get install -y -qq chromium >/dev/null; } || \
	    echo "No Chromium found: the browser tests will be skipped."; }

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit('vestige needs Python 3.11 or newer; set PYTHON=') if sys.version_info < (3, 11) else None"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/pip install -q -c constraints.txt torch
	PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/pip install -q -c constraints.txt -e ".[dev,features]"
	touch $(STAMP)

clean:
	rm -rf out build dist $(VENV)
