# `make` alone lists the targets. Everything is installed into .venv by the target that needs it.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin

SWEEP ?= quickstart#    the folder under multirun/ that figures and report read
ARGS ?=#                more arguments for regraft or pytest
WORKERS ?= 2#           processes that share the tests
PAPER ?= quickstart data_scaling criteria# the sweeps that `make paper` reads
VENUE ?= plain#         the page that its figures are drawn for: neurips, icml, acl, ieee, ...
VENUE := $(strip $(VENUE))
study ?= short#         `study=full` asks for five seeds, all questions and iterative pruning: for a GPU

SWEEP := $(strip $(SWEEP))
WORKERS := $(strip $(WORKERS))
study := $(strip $(study))
SHOWN := quickstart data_scaling criteria l2pft_vs_l2psd layers
STUDY := l2pft_vs_l2psd$(if $(filter full,$(study)),_full)
ANALYSIS := $(BIN)/python -m analysis

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: FORCE help sweep study sync paper pictures figures report test test-slow test-slurm test-ray golden check fix clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

sweep: $(VENV)/.installed ## train the tiny model, run the default sweep, print table and verdicts, draw figures
	@$(call run,quickstart)

study: $(VENV)/.installed ## CE against KL on CommonsenseQA with SmolLM2 (study=full ARGS="model=...": for a GPU)
	@$(call run,$(STUDY))

# What has finished is shown even if some runs failed; make fails all the same.
define run
echo "regraft experiment=$(1) $(ARGS)"; \
failed=0; $(BIN)/regraft experiment=$(1) sweep=$(1) $(ARGS) || failed=$$?; \
$(MAKE) --no-print-directory report SWEEP=$(1) && exit $$failed
endef

figures: $(VENV)/.installed ## every figure of a sweep that its records allow (SWEEP=quickstart)
	@$(ANALYSIS) figures multirun/$(SWEEP) --venue $(VENUE)

report: $(VENV)/.installed ## table and verdicts again, and all of a sweep as one page, report.html (SWEEP=quickstart)
	@$(ANALYSIS) report multirun/$(SWEEP)

sync: $(VENV)/.installed ## send the runs of a sweep to W&B that are not there yet (SWEEP=quickstart ARGS="--project ...")
	@$(BIN)/python -m regraft.tracking.wandb.sync multirun/$(SWEEP) $(ARGS)

paper: $(foreach sweep,$(PAPER),paper/$(sweep)/.figures-$(VENUE) paper/$(sweep)/table.tex paper/$(sweep)/values.tex) ## tables, figures and values.tex of PAPER="quickstart ..." into paper/
	@echo "paper: $(foreach sweep,$(PAPER),paper/$(sweep))"

READERS := $(wildcard analysis/*.py) src/regraft/records.py
# What is made depends on the records and on the code that reads them; what is up to date is left as it is.
# A file that lists the runs changes when one is added or taken away, and a drawn venue forgets the others.
define of_sweep
paper/$(1)/.runs: FORCE
	@test -d multirun/$(1) || { echo "multirun/$(1) is missing. Run it first$$(if $$(wildcard conf/experiment/$(1).yaml),: $$(BIN)/regraft experiment=$(1),.)"; exit 1; }
	@mkdir -p $$(@D) && ls multirun/$(1)/*/record.json | { cmp -s - $$@ || ls multirun/$(1)/*/record.json > $$@; }
paper/$(1)/results.parquet: paper/$(1)/.runs $$(wildcard multirun/$(1)/*/*.json multirun/$(1)/*/*.parquet) $$(READERS) | $$(VENV)/.installed
	@$$(ANALYSIS) collect multirun/$(1) --output $$(@D)
paper/$(1)/.figures-%: paper/$(1)/results.parquet $$(wildcard analysis/figures/*.py)
	@rm -rf $$(@D)/.figures-* $$(@D)/figures
	@$$(ANALYSIS) figures multirun/$(1) --venue $$* --output $$(@D)/figures
	@touch $$@
paper/$(1)/table.tex: paper/$(1)/results.parquet
	@$$(ANALYSIS) tables multirun/$(1) --output $$(@D)
paper/$(1)/values.tex: paper/$(1)/results.parquet
	@$$(ANALYSIS) values multirun/$(1) --output $$(@D)
endef
$(foreach sweep,$(sort $(PAPER) $(SHOWN)),$(eval $(call of_sweep,$(sweep))))

# sweep/figure of each picture in the docs, which is named after both
PICTURES := $(addprefix quickstart/,accuracy_vs_block_sparsity accuracy_vs_retention loss_kl_minus_ce \
    pareto_accuracy_vs_parameters reliability spread_of_seeds training_curves) \
    data_scaling/accuracy_vs_recovery_questions data_scaling/uncertainty_vs_recovery_questions \
    criteria/criteria l2pft_vs_l2psd/accuracy_vs_block_sparsity layers/layer_wise_sparsity

pictures: $(foreach sweep,$(SHOWN),paper/$(sweep)/.figures-plain) $(VENV)/.browser ## the pictures of the docs, from the sweeps that they show
	@mkdir -p docs/pictures
	@for each in $(PICTURES); do cp paper/$${each%/*}/figures/$${each#*/}.png docs/pictures/$${each%/*}_$${each#*/}.png; done
	@$(ANALYSIS) report multirun/quickstart --output paper/quickstart/report
	@$(BIN)/python docs/screenshots.py paper/quickstart/report/report.html docs/pictures

test: $(VENV)/.installed-dev $(VENV)/.browser ## the tests that need neither minutes nor a GPU
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal $(ARGS)

test-slow: $(VENV)/.installed-dev ## the tests that take minutes (those of an extra are skipped without it)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m "slow and not gpu and not slurm" $(ARGS)

test-slurm: $(VENV)/.installed-slurm ## sweeps on a Slurm that is started for them (as root; Debian's slurm-wlm is installed)
	@command -v slurmctld slurmd >/dev/null || { apt-get update && \
	    DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends slurm-wlm; }
	@tests/sweeps/slurm/with_slurm $(BIN)/python -m pytest -q -m slurm tests/sweeps/test_slurm.py $(ARGS)

test-ray: $(VENV)/.installed-ray ## sweeps on a Ray that is started for them
	@$(BIN)/python -m pytest -q -m slow tests/sweeps/test_ray.py $(ARGS)

golden: $(VENV)-golden/.installed ## rebuild the numbers of llm-compressor that tests compare with, in its own environment
	@$(VENV)-golden/bin/python tests/golden/llmcompressor_masks.py

check: $(VENV)/.installed-dev ## lint, format and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

fix: $(VENV)/.installed-dev ## format, and mend what the linter can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean: ## remove .venv, .venv-golden and what tools leave; results in multirun/ stay
	rm -rf $(VENV) $(VENV)-golden build dist src/*.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find src analysis tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "No python3 is on the path: install Python 3.11 or later."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed; name one with PYTHON=")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml setup.py constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml setup.py constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test,dev]"
	@touch $@ $(VENV)/.installed

# tried once: without a browser the tests that need one are skipped
$(VENV)/.browser: | $(VENV)/.installed-dev
	@tests/analysis/get_chromium $(BIN)/playwright
	@touch $@

$(VENV)/.installed-slurm $(VENV)/.installed-ray: $(VENV)/.installed-%: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[$*]"
	@touch $@

$(VENV)-golden/.installed: tests/golden/requirements.txt | $(BIN)/python
	$(BIN)/python -m venv --clear $(VENV)-golden
	$(VENV)-golden/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@
