# Two commands do everything on a fresh machine: `make demo` and `make test`. Each makes .venv the first time, and again
# only when pyproject.toml or a list of pinned versions changes.

SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WORKERS ?= 2

.PHONY: demo test bench calibrate replay same check format clean
.DEFAULT_GOAL := test

demo: $(STAMP)  ## the main job on the bundled model: 5 to 9 minutes on 2 cores, ends with the report's path
	@$(BIN)/welltuned demo

test: $(STAMP)  ## the tests
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -q

bench: $(STAMP)  ## packed training against Trainer + PEFT on this machine: two cases; one of them took 9 minutes on 2 cores
	@$(BIN)/python -W ignore -m benchmarks.packed_vs_peft --samples 384

calibrate: $(STAMP)  ## simulate whether verdicts are calibrated, and write docs/calibration.md: about 4 minutes on one core
	@OMP_NUM_THREADS=1 $(BIN)/python -m scripts.calibrate

replay: $(STAMP)  ## run the searches on the recorded surfaces, and write docs/tuner.md: about an hour on two cores
	@OMP_NUM_THREADS=1 $(BIN)/python -m scripts.replay_page --workers $(WORKERS)

same: $(STAMP)  ## the losses of this tree and of git revision REF, compared to the bit: make same REF=HEAD~1
	@$(BIN)/python scripts/same.py $(or $(REF),HEAD)

check: $(STAMP)  ## style, types, architecture
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/pyright
	@$(BIN)/python -m pytest -q tests/test_architecture.py

format: $(STAMP)  ## rewrite the files in the house style
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean:  ## remove what the other targets made
	rm -rf $(VENV) .pytest_cache .ruff_cache build dist

$(STAMP): pyproject.toml constraints.txt tests/curvlinops.txt
	@set -e; found=""; \
	for python in $(PYTHON) python3 python3.13 python3.12 python3.11; do \
	  if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then found="$$python"; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "Python: got $$(python3 --version 2>&1), expected 3.11 or newer;" \
	       "install one, or name it: make PYTHON=/path/to/python3.11" >&2; exit 2; \
	fi; \
	echo "making $(VENV) with $$("$$found" --version) (once; torch is the large part)"; \
	"$$found" -m venv $(VENV); \
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'; \
	$(BIN)/python -m pip install --quiet --no-deps --requirement tests/curvlinops.txt
	@touch $(STAMP)
