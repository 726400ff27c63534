# make search: set up an environment, build the extension, search on real images, train the result.
# make test:   set up an environment, build the extension, run the whole suite.

PYTHON ?= python3
TORCH ?= torch==2.13.0
BIN := .venv/bin

.PHONY: search test clean

search: .venv/installed
	$(BIN)/ddarts search --data digits --method ddarts --epochs 10 --seed 0 --out runs/digits
	$(BIN)/ddarts train runs/digits/genotype.json --data digits --out runs/digits-trained

test: .venv/installed-test
	$(BIN)/python -m pytest -n auto --dist loadfile

clean:
	rm -rf .venv build dist runs *.egg-info ddarts_ext/_C.*so ddarts_ext/_cuda.*so

# torch first: the extension is built against the torch that is there.
.venv/torch:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --upgrade pip
	$(BIN)/python -c "import torch" 2>/dev/null || $(BIN)/python -m pip install "$(TORCH)"
	touch $@

SOURCES := setup.py $(wildcard build_*.py) pyproject.toml $(wildcard csrc/*.cpp csrc/*/*)

.venv/installed: .venv/torch $(SOURCES)
	$(BIN)/python -m pip install -e .
	touch $@

.venv/installed-test: .venv/installed
	$(BIN)/python -m pip install -e ".[test]"
	touch $@
