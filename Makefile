# make run and make test are all that a new clone needs; make help lists the rest.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Debian 12's pip warns of cgroupspy's setup.py without this; later ones do it anyway.
export PIP_USE_PEP517 := 1

# Namespaces, mounts and cgroups need root. As root, sudo leaves no root-owned bytecode in the tree.
AS_ROOT := $(if $(filter-out 0,$(shell id -u)),$(if $(shell command -v sudo),sudo env PYTHONDONTWRITEBYTECODE=1))

# Directories too: their time changes when a file is removed. Not bytecode, which a run may write.
PACKAGE := setup.py setup.cfg pyproject.toml MANIFEST.in $(wildcard README.md) mydocker subsystems bin
SOURCES := $(shell find $(PACKAGE) -name __pycache__ -prune -o -print)

.PHONY: help run test test-vm test-engines bench lint types clean uidmap peers

help:  ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

# Without a terminal, as in CI, run it in one. Not by script(1): at the end of its stdin that types a NUL.
RUN := $(BIN)/mydocker run -ti -mem 100m ls -l
PTY_SPAWN := import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))
run: $(VENV)/.installed  ## Set up .venv, then run a command in a container with 100 MB of memory
	@echo '$$ mydocker run -ti -mem 100m ls -l'
	@if [ -t 0 ]; then $(AS_ROOT) $(RUN); else $(AS_ROOT) $(BIN)/python -c '$(PTY_SPAWN)' $(RUN) </dev/null; fi

# pytest's own script and not python -m pytest: that would put the source tree before the installed package.
test: $(VENV)/.installed-dev uidmap peers  ## Run the unit and integration tests on this host
	@$(AS_ROOT) $(BIN)/pytest -o faulthandler_timeout=300 tests/unit tests/integration

test-vm: $(VENV)/.installed-dev uidmap peers  ## Run what goes by cgroup versions in virtual machines with v2, v1 and hybrid; VM=--others: but for this host's own
	@$(AS_ROOT) $(BIN)/python tests/vm/run_layouts.py $(VM)

test-engines: $(VENV)/.installed-dev  ## Run containers by Podman, Docker and containerd, on mydocker-oci and on runc
	@$(AS_ROOT) $(BIN)/python tests/engines/install.py
	@$(AS_ROOT) $(BIN)/pytest -o faulthandler_timeout=300 tests/engines

# newuidmap and newgidmap, by which a plain user's container gets subordinate ids.
uidmap:
	@if ! command -v newuidmap >/dev/null && command -v apt-get >/dev/null; then $(AS_ROOT) sh -c 'apt-get update -qq && \
		DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends uidmap >/dev/null'; fi

# The same containers are run by runc as by mydocker-oci; a bus of its own stands in for systemd's.
peers:
	@if ! PATH="$$PATH:/usr/sbin" sh -c 'command -v runc && command -v dbus-daemon' >/dev/null && command -v apt-get >/dev/null; \
		then $(AS_ROOT) sh -c 'apt-get update -qq && \
		DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends runc dbus-daemon >/dev/null'; fi

bench: $(VENV)/.installed-dev  ## Measure runs beside runc, crun, bwrap, podman and C: bench/RESULTS.md; ONLY=api: one part
	@$(AS_ROOT) $(BIN)/python tests/bench/bench.py $(ONLY)

lint: $(VENV)/.installed-dev  ## Check the style with ruff
	@$(BIN)/ruff check .

types: $(VENV)/.installed-dev  ## Check the types with mypy
	@$(BIN)/mypy

clean:  ## Remove .venv and the tools' caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

# Debian keeps what venv needs in a package of its own, python3-venv.
$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'mydocker needs Python 3.11 or newer: make PYTHON=/path/to/python3' >&2; exit 1; }
	@if ! $(PYTHON) -c 'import ensurepip' 2>/dev/null && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq python3-venv >/dev/null; fi
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
		{ echo 'A virtual environment needs the package python3-venv: apt-get install python3-venv' >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@touch $@

# Built from a copy: setuptools leaves build/ in the tree and would install files that are no longer in the sources.
# The stamp has the time of the copy, so that what is edited meanwhile is installed next time. Each start of Python in an
# environment with setuptools takes 0.7 ms longer for that one file, by which `import distutils` means its copy of that.
define install
@touch $@.new && copy=$$(mktemp -d) && trap 'rm -rf "$$copy"' EXIT && cp -R $(PACKAGE) "$$copy" && \
	find "$$copy" -name __pycache__ -prune -exec rm -rf {} + && $(BIN)/pip install -q "$$copy$(1)" && \
	rm -f $(VENV)/lib/python3.*/site-packages/distutils-precedence.pth && mv $@.new $@
endef

$(VENV)/.installed: $(VENV)/.created $(SOURCES)
	$(call install)

$(VENV)/.installed-dev: $(VENV)/.created $(SOURCES)
	$(call install,[dev])
	@touch -r $@ $(VENV)/.installed
