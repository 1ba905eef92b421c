# make course | test | lab | notebooks | results | weights | site | slides | lint. The first call sets everything up in .venv; nothing outside is touched.
PYTHON ?= python3
PRESET ?= smoke
BIN := .venv/bin
READY := .venv/.ready
comma := ,
PIP := $(BIN)/python -m pip --disable-pip-version-check
# Variables of an active environment would lead pip and Jupyter elsewhere.
unexport VIRTUAL_ENV PYTHONHOME PYTHONPATH JUPYTER_PATH
export JUPYTER_PREFER_ENV_PATH := 1

.PHONY: course test lab notebooks results weights site slides lint setup help
help:
	@echo "make course [PRESET=smoke|laptop|paper] [ARGS='-p seed=1']   run all notebooks; results in runs/<preset>/"
	@echo "make test [ARGS='-m \"not slow\"']                             run all tests, or the quick ones"
	@echo "make lab                                                     open the notebooks in JupyterLab"
	@echo "make notebooks [ONLY=03]                                     execute notebooks in place, store their outputs"
	@echo "make results [PRESET=laptop]                                 every table and figure of RESULTS.md"
	@echo "make weights                                                 train the two shipped models again, one after the other"
	@echo "make site                                                    build the course as a website that needs no network"
	@echo "make slides [ARGS='--only 03']                               slides of the notebooks, in runs/slides/"
	@echo "make setup TORCH_INDEX=https://download.pytorch.org/whl/cpu  set up with torch for processors only: gigabytes smaller"
	@echo "make lint                                                    ruff, and the form of notebooks and pages"

course: $(READY)
	$(BIN)/fusmae course --preset $(PRESET) $(ARGS)

# Two workers with one thread each: stored numbers were made with one thread, and small tensors gain nothing from two.
test: $(READY)
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder $(ARGS)

lab: $(READY)
	$(BIN)/jupyter lab --notebook-dir=. --LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb $(ARGS)

notebooks: $(READY)
	$(BIN)/python docs/store.py $(ONLY)

# RESULTS.md reports the laptop preset; other presets leave it alone and write to runs/results-<preset>/report.
results: $(READY)
	$(BIN)/fusmae results --preset $(PRESET) $(if $(filter laptop,$(PRESET)),--write) $(ARGS)

# The laptop preset's recipe, larger and for longer, in bf16 where the processor has it; interrupted, it goes on.
WEIGHTS := --preset laptop -p width=128 -p depth=5 -p decoder_depth=2 -p epochs=2000 -p warmup_epochs=100 -p learning_rate=1.2e-3 \
  -p checkpoint_every=50 -p keep_checkpoints=60 -p precision=auto
weights: $(READY)
	for fusion in xae xad; do \
	  $(BIN)/fusmae pretrain $(WEIGHTS) $(ARGS) -p fusion=$$fusion -p run_dir=runs/weights/$$fusion && \
	  $(BIN)/python benchmarks/ship_weights.py runs/weights/$$fusion fusmae_lite/weights/$$fusion-lite.safetensors || exit 1; \
	done

site: $(READY)
	@$(BIN)/python docs/site/build.py $(ARGS)

slides: $(READY)
	@$(BIN)/python docs/slides.py $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -q tests/lint

setup: $(READY)

# Gigabytes take minutes. A terminal gets pip's own bars, a log one line for each package and download.
install = if [ -t 1 ]; then $(PIP) install -c constraints.txt $(1); else \
	  { $(PIP) install --progress-bar off -c constraints.txt $(1) || touch .venv/.failed; } | while IFS= read -r line; do \
	    case $$line in Collecting*|*Downloading*[MG]B*|Installing*) echo "$${line%%:*}";; esac; done; test ! -e .venv/.failed; fi

# torch and torchvision first and as a pair: the rest then resolves around them. Of an index for processors pip takes
# 2.14.1+cpu, which counts as later than 2.14.1.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "error: $(PYTHON) is missing or older than Python 3.11; install one and name it: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || { rm -rf .venv; \
	  echo "error: $(PYTHON) cannot make a virtual environment; on Debian or Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@echo "setting up .venv: about $(if $(TORCH_INDEX),2,6) GB are fetched and unpacked the first time, most of it torch; 2 to 5 minutes"
	@rm -f .venv/.failed
	@$(call install,torch==2.14.1 torchvision==0.29.1$(if $(TORCH_INDEX), --extra-index-url $(TORCH_INDEX)))
	@$(call install,-e '.[test$(comma)site]')
	@echo "set up; for commands of your own, once in each terminal: source .venv/bin/activate"
	@touch $@
