# What a person types. Each recipe does its own set-up, is idempotent, and is quiet when there is nothing to do.
# Needs a Debian 12 machine with the Swift toolchain; everything else is installed by scripts/setup.

SHELL := /bin/bash
.DEFAULT_GOAL := help
BUILD := .build/release
PORT ?= 8080
SEED_GIVEN := $(SEED)
SEED ?= 42
SEEDS ?= 0..<5000
SECONDS ?= 60
MINUTES ?= 10
SANITIZER ?= address
JOBS ?= 3

# make install DESTDIR=… PREFIX=/usr/local, make deb MAINTAINER='NAME <MAIL>': the scripts read them.
export DESTDIR PREFIX MAINTAINER

# Every target is a name, none a file.
.PHONY: $(shell sed -n 's/^\([a-z-]*\):.*/\1/p' $(firstword $(MAKEFILE_LIST)))

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup:  ## install what the build and the tests need
	@scripts/setup build agent

build: setup  ## build the release binary, with the Swift standard library inside
	@scripts/build release

run: build  ## supervise the example agent on $PORT (default 8080); Ctrl-C ends it
	@PORT=$(PORT) scripts/run-agent

test: unit seeds agent-test end-to-end sbom-test  ## every test

unit:
	@scripts/setup build
	@scripts/unit-tests

agent-test:
	@scripts/setup agent-tests
	@cd Examples/agent && ../../.venv/agent-tests/bin/python -m pytest -q

end-to-end: build
	@scripts/setup end-to-end observe
	@.venv/end-to-end/bin/python -m pytest -q -n $(JOBS) Tests/EndToEnd $(ARGS)

install:  ## install program, units, completions and manual below PREFIX (/usr/local), in DESTDIR
	@if command -v swift >/dev/null || [ ! -x $(BUILD)/panelind ]; then $(MAKE) --no-print-directory build; fi
	@scripts/setup package
	@scripts/install

deb: build  ## build the Debian package and print its path
	@scripts/setup package
	@scripts/package

sbom: build  ## write what is inside as an SPDX document and print its path (docs/dependencies.md)
	@scripts/sbom

sbom-test: build
	@scripts/setup sbom
	@.venv/sbom/bin/python -m pytest -q Tests/Sbom $(ARGS)

systemd-test: build  ## install the package under real systemd 257 and 252, and in a whole machine (root)
	@Tests/Environments/systemd-all.sh

containers:  ## build the image from a clean clone, and run it as Cloud Run does (root)
	@Tests/Environments/container.sh

deployment: build  ## judge image, build, service, alerts and scripts; needs no cloud
	@Tests/Deployment/validators/check_all.sh
	@.venv/deployment/bin/python -m pytest -q -n 2 Tests/Deployment $(ARGS)

faults: build  ## every system call of a life fails once, one life for each (about half an hour; FIRST=40 of each kind)
	@scripts/setup end-to-end
	@.venv/end-to-end/bin/python -m pytest -q -n 0 Tests/EndToEnd/test_faults.py Tests/EndToEnd/sweep_faults.py $(ARGS)

fuzz: setup  ## fuzz all that reads from outside: make fuzz SECONDS=60 [SANITIZER=thread|none] [SEED=42]
	@scripts/fuzz $(SECONDS) $(SANITIZER) $(if $(SEED_GIVEN),$(SEED))

sanitize: setup  ## unit tests of modules with threads or C under AddressSanitizer, then ThreadSanitizer (half an hour)
	@scripts/sanitize address
	@scripts/sanitize thread

soak: build  ## minutes of traffic and chaos on the built binary: make soak MINUTES=10 [SEED=42]; Ctrl-C ends it
	@scripts/setup agent
	@.venv/agent/bin/python Tests/Soak/soak.py --minutes $(MINUTES) $(if $(SEED_GIVEN),--seed $(SEED_GIVEN)) $(ARGS)

conformance: build  ## promises from outside, of panelind in all its places and of its peers (a few minutes)
	@scripts/setup conformance
	@.venv/bench/bin/python Tests/Conformance/conformance.py $(or $(ARGS),--write)

seeds: setup  ## simulated worlds, 5,000 of them: every law holds in each (SEEDS='0..<5000')
	@scripts/build release panelind-sim
	@$(BUILD)/panelind-sim --seeds '$(SEEDS)' $(if $(WORLD),--world $(WORLD)) $(ARGS)

nightly:  ## 200,000 worlds, what they did not reach, and every planted fault
	@$(MAKE) --no-print-directory seeds SEEDS='0..<200000' ARGS=--coverage
	@$(MAKE) --no-print-directory mutants

mutants: setup  ## plant faults in the core, one at a time: the simulation catches each (about ten minutes)
	@python3 Tests/Mutants/mutants.py $(ARGS)

simulate: setup  ## replay one seed of the simulation: make simulate SEED=42 (WORLD=cloudrun)
	@scripts/build release panelind-sim
	@$(BUILD)/panelind-sim $(SEED) --transcript $(if $(WORLD),--world $(WORLD))

reference: setup  ## write etc/panelind.yaml and docs/settings.md anew from the table of settings
	@UPDATE_REFERENCE=1 scripts/unit-tests --filter ReportTests

check: build  ## show every effective setting of ./panelind.yaml or of ARGS
	@$(BUILD)/panelind check $(ARGS)

bench: build  ## measure against real peers in one run (25 minutes; ARGS='--scale 0.3', ARGS=--report writes docs/benchmarks.md)
	@scripts/setup bench
	@PATH="$(CURDIR)/.build/release:$(CURDIR)/.venv/bench/bin:$$PATH:/usr/sbin" .venv/bench/bin/python Benchmarks/bench.py $(ARGS)

format:  ## format the Swift sources in place
	@swift format --in-place --recursive --parallel Sources Tests Package.swift

lint:  ## what CI says of the format
	@swift format lint --strict --recursive --parallel Sources Tests Package.swift

clean:
	rm -rf .build .venv
