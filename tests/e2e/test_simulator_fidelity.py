"""Simulated latencies beside a real vLLM's: that the comparison can be made, on every load and quantile.

How near they are is for a quiet machine to say: ``tests/benchmarks/bench_simulator_fidelity.py``. On one whose cores
the engine, its client and others share, the measured latencies say more of the others than of the engine.
"""

from __future__ import annotations

import math

import pytest

pytest.importorskip("aiohttp")

from e2e.fidelity import LOADS, compared

pytestmark = pytest.mark.e2e


def test_simulated_latencies_stand_beside_a_real_engines(measured_profile, server, tiny):
    rows = list(compared(server, measured_profile.path, tiny, requests=60, point_s=4.0))
    assert {(row.load, row.name) for row in rows} == {
        (load, f"{metric} p{q}") for load in LOADS for metric in ("TTFT", "TPOT") for q in (50, 99)
    }
    for row in rows:
        values = (*row.measured_ms, row.simulated_ms, row.by_profile_ms)
        assert all(math.isfinite(value) and value > 0 for value in values), row
    for metric in ("TTFT", "TPOT"):
        for value in (lambda r: r.measured_ms[0], lambda r: r.simulated_ms):
            by_name = {(row.load, row.name): value(row) for row in rows}
            assert all(by_name[load, f"{metric} p50"] <= by_name[load, f"{metric} p99"] for load in LOADS)
