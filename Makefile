# Two commands set everything up on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint format clean

demo: $(VENV)/.installed
	$(BIN)/pipeline run pipeline.yaml

test: $(VENV)/.installed-dev lint chromium
	$(BIN)/python -m pytest

# The jobs of `pipeline submit` on a real Slurm, several nodes of this machine: three to five minutes.
.PHONY: slurm test-slurm
test-slurm: $(VENV)/.installed-dev slurm
	$(BIN)/python -m pytest -m slurm tests/slurm

slurm:
	@PATH=$$PATH:/usr/sbin; missing=; \
	for name in sbatch munged slurmctld slurmd; do command -v $$name >/dev/null || missing=1; done; \
	if [ -n "$$missing" ]; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "installing Slurm for its tests"; \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq slurm-wlm munge >/dev/null; \
	  else \
	    echo "no Slurm found, its tests will be skipped: install slurmctld, slurmd, sbatch and munged"; \
	  fi; \
	fi

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/.created:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; say which: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.installed: $(VENV)/.created pyproject.toml
	@echo "installing into $(VENV): a minute or two, 1.6 GB"
	$(BIN)/pip install --quiet -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.created pyproject.toml
	@echo "installing into $(VENV): a minute or two, 1.6 GB"
	$(BIN)/pip install --quiet -e '.[dev]'
	touch $@ $(VENV)/.installed

# The report's test opens it in a browser. Debian and Ubuntu are served when root; elsewhere,
# install Chromium or Chrome, or name one in CHROMIUM.
.PHONY: chromium
chromium:
	@for name in "$$CHROMIUM" chromium chromium-browser google-chrome google-chrome-stable; do \
	  if [ -n "$$name" ] && command -v "$$name" >/dev/null; then exit 0; fi; \
	done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "installing Chromium for the report's test"; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium >/dev/null; \
	else \
	  echo "no Chromium found, the report's test will fail: install it, or set CHROMIUM=/path/to/chrome"; \
	fi

clean:
	rm -rf runs build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
