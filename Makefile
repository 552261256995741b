# Every habit of the project. `make train` and `make test` set up everything by themselves.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
DATA ?=
EPOCHS ?=
ARGS ?=
SAMPLE := sample-notes

.PHONY: help setup setup-dev browser train studio test check bench drills faults docs lock clean

help: ## what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

# In CI on the platform of the lock file, exactly its files are installed; elsewhere what fits pyproject.toml.
LOCKED := $(shell [ "$$CI" = true ] && [ "$$(uname -sm)" = "Linux x86_64" ] && $(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' && echo yes)

setup: $(VENV)/.ready ## the virtual environment with SmartCash in it

$(VENV)/.ready: pyproject.toml package-lock.json
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[fast]'
	@touch $@

setup-dev: $(VENV)/.ready-dev ## the same with all tools of development

$(VENV)/.ready-dev: pyproject.toml package-lock.json requirements/ci.lock
	$(PYTHON) -m venv $(VENV)
ifeq ($(LOCKED),yes)
	$(BIN)/python -m pip install --quiet --require-hashes --no-deps -r requirements/ci.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
else
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[test,dev]'
endif
	@touch $@ $(VENV)/.ready

browser: setup-dev ## a Chromium for the tests of the web page, if there is none
	@command -v chromium || command -v chromium-browser || command -v google-chrome \
	|| { [ "$$(id -u)" = 0 ] && command -v apt-get && apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; } \
	|| $(BIN)/python -m playwright install chromium \
	|| echo "No Chromium could be installed: the tests of the web page are skipped, in CI they fail."

train: setup ## draw sample notes and train a detector on them; or DATA=folder for your own, EPOCHS=n, ARGS="--set …"
ifeq ($(DATA),)
	@test -f $(SAMPLE)/data.yaml || $(BIN)/smartcash data sample --out $(SAMPLE) --images 480
	$(BIN)/smartcash train $(SAMPLE) --image-size 224 $(if $(EPOCHS),--epochs $(EPOCHS)) --yes $(ARGS)
else
	$(BIN)/smartcash train "$(DATA)" $(if $(EPOCHS),--epochs $(EPOCHS)) --yes $(ARGS)
endif

studio: setup ## the web page, in the browser; ARGS="--home folder" for other runs than ./runs
	$(BIN)/smartcash studio $(ARGS)

test: setup-dev browser ## all tests, the slow ones too; the whole fault matrix is `make faults`, the longest drills are `make drills`
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -m "not faults and not drills" -n 2 --dist loadfile

check: setup-dev ## lint, types, import contracts, fast tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -m "not slow and not faults and not drills"

drills: setup-dev browser ## the longest: proxies, kills and reloads in a browser, the notebook, one after the other
	$(BIN)/python -m pytest -m drills

faults: setup-dev ## the whole fault matrix of the checkpoints
	$(BIN)/python -m pytest tests/checkpoint -m faults -s

bench: setup-dev ## speed against peers, in an environment of their own; prints ratios
	$(BIN)/python -m benchmarks

docs: setup ## the documentation as a site in site/
	$(BIN)/python -m pip install --quiet -e '.[docs]'
	$(BIN)/mkdocs build --strict

lock: setup-dev ## write requirements/ci.lock anew: names, versions, hashes
	$(BIN)/python requirements/make_lock.py > requirements/ci.lock.new
	mv requirements/ci.lock.new requirements/ci.lock

clean: ## remove the virtual environment and what tools leave behind
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache site
