# BaseOS: what can be done here. `make` prints the menu.
#
# Needs git, make, python3 (3.11 or newer) and pip; everything else goes into .venv, nothing is installed globally.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
UV     := uv==0.13.9

# As many tests at once as there are cores. One after the other: make test AT_ONCE=
AT_ONCE ?= -n auto --maxprocesses 8 --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help setup run demo test check power-cuts kills fault-sweep fuzz load fleet bench bench-fleet lock lock-check docs docs-check check-arm image clean

help: ## This menu
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## Make .venv from the hashed lock (quick when it is there already)

$(READY): requirements/dev.lock pyproject.toml tools/setup.sh
	@PYTHON="$(PYTHON)" tools/setup.sh $(VENV)
	@touch $@

run: $(READY) ## Play the story with Cloudly, a simulated Supervisor and baserunner; stays up until Ctrl-C
	@$(BIN)/python -m simulators.demo

demo: $(READY) ## Play the same story once and exit with a verdict
	@$(BIN)/python -m simulators.demo --once

test: $(READY) ## Fast tests
	@$(BIN)/python -m pytest -q $(AT_ONCE) -m "not slow"

check: $(READY) lock-check ## Everything CI asks: format, lint, types, import contracts, docs, all tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m tools.docs --check
	$(BIN)/python -m pytest -q $(AT_ONCE) --durations 20 --durations-min 5

power-cuts: $(READY) ## Cut the power 200 times under the running agent (root and loop devices; TIMES=n)
	@$(BIN)/python -m tests.kill.run_ordeals power --times $(or $(TIMES),200)

kills: $(READY) ## Kill the running agent 200 times at random instants (TIMES=n)
	@$(BIN)/python -m tests.kill.run_ordeals kill --times $(or $(TIMES),200)

fault-sweep: $(READY) ## Let the disk fail at every call of a story, with every errno (10 minutes; EVERY=n: a share)
	@$(BIN)/python -m tests.faults.run_sweep --every $(or $(EVERY),1)

load: $(READY) ## 500 devices, an agent and a Supervisor each, at one Cloudly (10 minutes; DEVICES=n)
	@$(BIN)/python -m tests.load.run_load --devices $(or $(DEVICES),500)

fleet: $(READY) ## 10,000 devices with a real agent each through a good and a bad rollout, in simulated time (DEVICES=n SEED=n RATE=0.03 RUNS=n)
	@$(BIN)/python -m tests.fleet --devices $(or $(DEVICES),10000) --rate $(or $(RATE),0.03) --runs $(or $(RUNS),1000) $(if $(SEED),--seed $(SEED))

FUZZ ?= --seconds 3600

fuzz: $(READY) ## Fuzz the real agent against the real Cloudly for an hour; FUZZ="--seed 1 --traces 100000 --seconds 36000"
	@$(BIN)/python -m tests.fuzz $(FUZZ)

bench: $(READY) ## Measure device and journal; writes docs/benchmarks.md
	@$(BIN)/python -m benchmarks device

bench-fleet: $(READY) ## Measure Cloudly with a million nodes (half an hour, quiet); writes docs/benchmarks-fleet.md
	@$(BIN)/python -m benchmarks fleet

docs: $(READY) ## Write the pages that come from code: machines, --help, schemas
	@$(BIN)/python -m tools.docs

docs-check: $(READY) ## Compare those pages with the code
	@$(BIN)/python -m tools.docs --check

lock: ## Resolve requirements/*.lock again (network)
	@tools/lock.sh "$(PYTHON)" "$(UV)"
	@$(MAKE) --no-print-directory lock-check

lock-check: ## The locks hold hashes and no address
	@! grep -nE '://|^-|[ (]/' requirements/*.lock || { echo "requirements: a lock holds an address, an option or a path" >&2; exit 1; }

check-arm: $(READY) ## Ask the package index whether a device can install device.lock without a compiler (network)
	@$(BIN)/python -m tools.check_arm

image: ## Build the device image with docker
	docker build --target device --tag baseos/baserunner:dev .

clean: ## Remove what was made here: .venv, build, caches
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
