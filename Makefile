# sysvisor-runc: everything a person does with the source tree.  `make` alone lists it.

PREFIX    ?= /usr/local
DESTDIR   ?=
PYTHON    ?= /usr/bin/python3
# Known too, off unless asked for: nokmem.
BUILDTAGS ?= seccomp selinux apparmor ambient
TESTFLAGS ?=
TESTPATH  ?=
BENCHFLAGS ?=

VENV     := .venv
BIN      := $(VENV)/bin
SBINDIR  := $(DESTDIR)$(PREFIX)/sbin
LIBDIR   := $(PREFIX)/lib/sysvisor-runc
MANDIR   := $(DESTDIR)$(PREFIX)/share/man/man8
BASHDIR  := $(DESTDIR)$(PREFIX)/share/bash-completion/completions
ZSHDIR   := $(DESTDIR)$(PREFIX)/share/zsh/site-functions
FISHDIR  := $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
UNITDIR  := $(DESTDIR)$(PREFIX)/lib/systemd/system
UNITS    := $(notdir $(wildcard contrib/systemd/*))
PACKAGES := sysvisor_runc sysvisor_fs

# `make` lists the targets; `make BUILDTAGS='…'` alone builds with them, as with runc.
.DEFAULT_GOAL := $(if $(filter command%,$(origin BUILDTAGS)),build,help)
.PHONY: help demo demo-systemd test test-vm integration upstream-conformance lint format bench docs proto build install uninstall deps clean distclean
.SUFFIXES:
MAKEFLAGS += --no-print-directory

help: ## list the targets
	@echo 'usage: make TARGET [VARIABLE=VALUE…]'
	@echo
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  \1|\2/p' Makefile | while IFS='|' read -r t d; do printf '%-16s %s\n' "$$t" "$$d"; done
	@echo
	@echo 'variables'
	@printf '  %-14s %s\n' \
	    'PREFIX' 'where install puts things ($(PREFIX))' \
	    'DESTDIR' 'staging root for packagers (empty)' \
	    'PYTHON' 'interpreter, 3.11 or newer ($(PYTHON))' \
	    'BUILDTAGS' 'features ($(BUILDTAGS))' \
	    'TESTFLAGS' 'more arguments for pytest, such as "-k name"' \
	    'TESTPATH' 'one integration file, such as /lifecycle' \
	    'BENCHFLAGS' 'arguments for the benchmark, such as "--runs 50 --json"'

# --- what must be there first -------------------------------------------------------------------------------------

deps: ## install missing Debian packages and make the virtual environment
	@tools/debian-packages base build test system clients
	@$(MAKE) $(VENV)/.dev

# python-prctl is compiled, hence the build group.
$(BIN)/python:
	@tools/debian-packages base build
	@$(PYTHON) -m venv $(VENV)

# The project and what it runs on.
$(VENV)/.project: pyproject.toml | $(BIN)/python
	@echo '==> virtual environment $(VENV): the project and its libraries (about half a minute, once)'
	@$(call pip,.)
	@touch $@

# … and what tests, types and lint need: all at once, which takes half the time of one after the other.
$(VENV)/.dev: pyproject.toml | $(BIN)/python
	@echo '==> virtual environment $(VENV): the project, its libraries and test tools (about a minute, once)'
	@$(call pip,'.[dev]')
	@touch $(VENV)/.project $@

pip = $(BIN)/python -m pip install -qq --disable-pip-version-check --use-pep517 --editable $(1)

# --- look at it ---------------------------------------------------------------------------------------------------

demo: ## bring up a system container on a busybox bundle: a shell on a terminal, else a checked tour
	@tools/debian-packages base
	@$(MAKE) $(VENV)/.project
	@$(BIN)/python tools/demo.py

demo-systemd: ## boot a whole Debian with systemd as an unprivileged system container
	@tools/debian-packages base system
	@$(MAKE) $(VENV)/.project
	@$(BIN)/python tools/demo_systemd.py

# --- check it -----------------------------------------------------------------------------------------------------

test: ## run everything that this machine can run
	@tools/debian-packages base build test system clients
	@$(MAKE) $(VENV)/.dev
	@$(BIN)/python -m pytest $(TESTFLAGS)

test-vm: ## run what needs Debian's own kernel, in an emulated machine (slow; an image of 1.5 GB is made once)
	@tools/debian-packages base vm
	@$(PYTHON) -m tools.vm $(TESTFLAGS)

integration: ## run the integration tests, or one file of them: TESTPATH=/lifecycle
	@tools/debian-packages base build test system clients
	@$(MAKE) $(VENV)/.dev
	@$(BIN)/python -m pytest $(if $(TESTPATH),tests/integration/test_$(patsubst /%,%,$(TESTPATH)).py,tests/integration) $(TESTFLAGS)

lint: $(VENV)/.dev ## ruff and mypy --strict, quiet when clean
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/mypy --no-error-summary

format: $(VENV)/.dev ## let ruff lay out the code and fix what it can
	@$(BIN)/ruff check --quiet --fix .
	@$(BIN)/ruff format --quiet .

bench: ## measure against Debian's runc and crun, side by side
	@tools/debian-packages base build test
	@$(MAKE) $(VENV)/.project
	@$(BIN)/python -m tests.bench $(BENCHFLAGS)
	@$(BIN)/python -m tests.bench.fs_run
	@$(BIN)/python -m tests.bench.fs
	@$(BIN)/python -m tests.bench.supervision $(SUPERVISIONFLAGS)

upstream-conformance: $(VENV)/.dev ## run runc's own integration suite: RUNC_SRC=checkout [CONFORMANCE='run exec'] [MODE=syscont]
	@[ -n '$(RUNC_SRC)' ] || { echo 'RUNC_SRC: name a checkout of opencontainers/runc'; exit 2; }
	@$(BIN)/python -m tests.conformance.run --mode '$(or $(MODE),plain)' '$(RUNC_SRC)' $(CONFORMANCE)

# --- make it ------------------------------------------------------------------------------------------------------

build: ## write what is generated: the build tags
	@$(PYTHON) tools/buildinfo.py --tags '$(BUILDTAGS)' sysvisor_runc/_build.py

docs: ## renew docs/man, contrib/completions and docs/compatibility.md from what they are made of
	@$(PYTHON) -m sysvisor_runc.cli.docs
	@$(PYTHON) -m tools.compatibility

proto: $(VENV)/.dev ## renew the messages of proto/*.proto in sysvisor_runc/contract
	@$(BIN)/python tools/proto.py

install: ## put sysvisor-runc into $(PREFIX)/sbin, with its library, man pages and completions
	@[ -n '$(DESTDIR)' ] || tools/debian-packages base
	@$(PYTHON) tools/install.py --python '$(PYTHON)' --library '$(LIBDIR)' --destdir '$(DESTDIR)' --tags '$(BUILDTAGS)' \
	    --program '$(PREFIX)/sbin/sysvisor-runc' --daemon '$(PREFIX)/sbin/sysvisor-fs' $(PACKAGES)
	@$(PYTHON) -m sysvisor_runc.cli.docs build
	@install -d '$(MANDIR)' '$(BASHDIR)' '$(ZSHDIR)' '$(FISHDIR)' '$(UNITDIR)'
	@install -m 644 build/man/*.8 docs/sysvisor-fs.8 '$(MANDIR)/'
	@install -m 644 build/completions/sysvisor-runc.bash '$(BASHDIR)/sysvisor-runc'
	@install -m 644 build/completions/_sysvisor-runc '$(ZSHDIR)/_sysvisor-runc'
	@install -m 644 build/completions/sysvisor-runc.fish '$(FISHDIR)/sysvisor-runc.fish'
	@for unit in $(UNITS); do \
	    sed 's|/usr/local/sbin|$(PREFIX)/sbin|g' "contrib/systemd/$$unit" >'$(UNITDIR)'/"$$unit" && chmod 644 '$(UNITDIR)'/"$$unit" || exit 1; \
	done
	@echo 'installed $(DESTDIR)$(PREFIX)/sbin/sysvisor-runc'

uninstall: ## remove what install put there
	@rm -f '$(SBINDIR)/sysvisor-runc' '$(SBINDIR)/sysvisor-fs' '$(MANDIR)'/sysvisor-runc*.8 '$(MANDIR)/sysvisor-fs.8' \
	    '$(BASHDIR)/sysvisor-runc' '$(ZSHDIR)/_sysvisor-runc' '$(FISHDIR)/sysvisor-runc.fish'
	@cd '$(UNITDIR)' 2>/dev/null && rm -f $(UNITS) || true
	@rm -rf '$(DESTDIR)$(LIBDIR)'
	@echo 'removed $(DESTDIR)$(PREFIX)/sbin/sysvisor-runc'

clean: ## remove what build, docs and the tests left in the tree
	@rm -rf build dist sysvisor_runc/_build.py *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -path ./$(VENV) -prune -o -name __pycache__ -type d -print0 | xargs -0 rm -rf

distclean: clean ## … and the virtual environment and cached root file systems
	@rm -rf $(VENV) .cache
