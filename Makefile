# make demo | make test | make lint: each is one command on a fresh machine that has Python 3.10+ and make.
PYTHON ?= python3
BIN := .venv/bin
JOBS ?= 2  # processes of the tests

.PHONY: help venv demo test lint docs twins sbom package package-check wheel-check label-env label-test browser clean

help:
	@echo "make demo    super-resolve the built-in synthetic pair; results in demo/"
	@echo "make test    the test suite"
	@echo "make lint    ruff, mypy, and known vulnerabilities where PyPI can be reached"
	@echo "make docs    the documentation as pages in dist/docs, without network"
	@echo "make twins   write the JSON twin of each workflow after its YAML changed"
	@echo "make sbom    bill of materials and licences, after dependencies or weights changed"
	@echo "make package  bundle/ as one zip file in dist/, the same bytes every time"
	@echo "make package-check  that file in an empty folder and a fresh environment, everything its model card says"
	@echo "make wheel-check    the wheel in a fresh environment, from another folder: the voxels of the clone"
	@echo "make label-env   .venv-label, an environment with MONAI Label 0.8.5"
	@echo "make label-test  its server on loopback: inferences, training and errors of bundle/label_app"
	@echo "make browser     what the tests of the QC page and of DICOM output drive, on Debian; they skip without it"
	@echo "make clean   remove the environment and results"

venv: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	@echo "installing 3 GB into .venv: PyTorch first, then ITK, MONAI and the rest; some minutes without a word"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[train,dev]'
	@touch $@

demo: venv
	$(BIN)/python scripts/demo.py --output demo

test: venv
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python scripts/audit.py

docs: venv
	$(BIN)/python scripts/build_docs.py --output dist/docs

twins: venv
	$(BIN)/python scripts/write_json_twins.py

sbom: venv
	$(BIN)/python scripts/write_sbom.py

package: venv
	$(BIN)/python scripts/package_bundle.py

package-check: venv
	$(BIN)/python scripts/check_package.py

wheel-check: venv
	$(BIN)/python scripts/check_wheel.py

label-env: .venv-label/.installed

.venv-label/.installed: bundle/label_app/requirements.txt bundle/label_app/requirements-no-deps.txt constraints.txt
	$(PYTHON) -m venv .venv-label
	echo '*' > .venv-label/.gitignore
	grep -v '^pydicom==' constraints.txt > .venv-label/constraints.txt  # the tests' own is newer than MONAI Label can take
	.venv-label/bin/python -m pip install --quiet --disable-pip-version-check --constraint .venv-label/constraints.txt -r bundle/label_app/requirements.txt pytest
	.venv-label/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r bundle/label_app/requirements-no-deps.txt
	@touch $@

label-test: label-env
	.venv-label/bin/python -m pytest --noconftest -p no:cacheprovider tests/label/test_server.py

browser:
	apt-get update && apt-get install -y --no-install-recommends chromium-headless-shell dicom3tools

clean:
	rm -rf .venv .venv-label demo dist
