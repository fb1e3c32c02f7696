"""The simulator's scheduling decisions against those of vLLM's own scheduler class, step by step, without a GPU."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from simulator.builders import clock, poisson

from melange.testing.tiny_model import write_tiny_model

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).resolve().parents[2]
REQUESTS = 150

# limits of the engine, request rate, mean input and output tokens
CASES = {
    "roomy": ({}, 6.0, (300, 60)),
    "few KV blocks, preemption": ({"kv_capacity_tokens": 1600, "max_num_seqs": 8}, 8.0, (200, 120)),
    "small chunks and few blocks": (
        {"kv_capacity_tokens": 800, "max_num_seqs": 16, "max_batched_tokens": 64}, 12.0, (150, 80),
    ),
    "two sequences": ({"max_num_seqs": 2}, 5.0, (400, 30)),
}  # fmt: skip


def case(changes: dict[str, object], rate_rps: float, sizes: tuple[int, int]) -> dict[str, object]:
    draw = np.random.default_rng(3)
    return {
        "clock": asdict(clock(**changes)),
        "arrival_s": poisson(rate_rps, REQUESTS, 4).tolist(),
        "input": draw.integers(1, 2 * sizes[0], REQUESTS).tolist(),
        "output": draw.integers(1, 2 * sizes[1], REQUESTS).tolist(),
        "cached": [0] * REQUESTS,
    }


@pytest.fixture(scope="module")
def decisions(tmp_path_factory):
    """Per case, the requests and their tokens of every step: vLLM's and the simulator's."""
    python = os.environ.get("MELANGE_VLLM_PYTHON")
    if not python or not Path(python).exists():
        pytest.skip("needs vLLM: set MELANGE_VLLM_PYTHON to the Python of an environment that has it")
    model = write_tiny_model(tmp_path_factory.mktemp("model"))
    done = subprocess.run(
        [python, str(ROOT / "tests/e2e/scheduler_driver.py"), str(model)],
        input=json.dumps([case(*values) for values in CASES.values()]),
        env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(zip(CASES, json.loads(done.stdout.splitlines()[-1]), strict=True))


@pytest.mark.parametrize("name", CASES)
def test_every_step_runs_the_same_requests_with_the_same_tokens(decisions, name):
    theirs, ours = decisions[name]["vllm"], decisions[name]["simulator"]
    first = next((n for n, (a, b) in enumerate(zip(theirs, ours, strict=False)) if a != b), None)
    assert first is None, f"step {first}: vLLM {theirs[first]}, simulator {ours[first]}"
    assert len(theirs) == len(ours)


def test_the_cases_contain_cut_prompts_and_preemptions(decisions):
    tight = decisions["small chunks and few blocks"]["vllm"]
    tokens = [n for step in tight for n in step.values()]
    assert 64 in tokens
    sizes = case(*CASES["small chunks and few blocks"])
    # Without preemption every prompt token and every output token but the last is computed once.
    assert sum(tokens) > sum(sizes["input"]) + sum(sizes["output"]) - REQUESTS
