"""Compiling changes nothing but the speed: the same bytes in plain Python, with numba told off or not installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import sys
if sys.argv[1] == "absent":
    sys.modules["numba"] = None
import hashlib
import numpy as np
from melange.routing.compiled import IS_COMPILED
from melange.routing import policy_by_name, routing_table
from melange.simulator.failures import Outage
from melange.simulator.run import play_fleet
from routing.builders import two_config_plan
from simulator.builders import arrivals, clock, poisson
assert IS_COMPILED == (sys.argv[1] == "compiled"), IS_COMPILED
draw = np.random.default_rng(0)
coming = arrivals(poisson(12.0, 250, 1), draw.integers(1, 101, 250), draw.integers(1, 501, 250))
clocks = {"small": clock(kv_capacity_tokens=1600), "large": clock(kv_capacity_tokens=4000, chunked_prefill=False)}
table = routing_table(two_config_plan(), clocks)
for name in ("paper", "shares:oracle", "shares:predictor=0.5", "power-of-two"):
    down = [Outage(replica=1, at_s=5, down_s=3)]
    played = play_fleet(table, list(clocks.values()), policy_by_name(name), coming, outages=down, samples=9)
    print(name, played.requests.preemptions.sum() > 0, played.requests.restarts.sum() > 0)
    print(*(hashlib.sha256(x.tobytes()).hexdigest() for x in (played.requests, played.replicas, played.sampled)))
"""


@pytest.fixture(scope="module")
def outputs():
    def run(how: str) -> str:
        environment = {k: v for k, v in os.environ.items() if k != "NUMBA_DISABLE_JIT"}
        environment |= {"NUMBA_DISABLE_JIT": "1"} if how == "plain" else {}
        environment["PYTHONPATH"] = str(Path(__file__).parents[1])
        command = [sys.executable, "-c", CODE, how]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return {how: run(how) for how in ("compiled", "plain", "absent")}


@pytest.mark.parametrize("how", ["plain", "absent"])
def test_plain_python_gives_the_same_bytes(outputs, how):
    assert outputs[how] == outputs["compiled"]


def test_the_run_has_preemptions_and_restarts(outputs):
    assert "True True" in outputs["compiled"]
