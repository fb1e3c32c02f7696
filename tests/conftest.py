"""Fixtures that several test modules share."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from melange import ProfileChoice, SizeGrid, Slo, Workload, WorkloadSpec
from melange.catalog.offers import PriceChoice

# No test may hang on how fast a busy machine is, and Hypothesis measures: examples against a deadline, their making.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


@pytest.fixture(autouse=True)
def nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command says nothing of how long it takes, which depends on the machine."""
    monkeypatch.setattr("melange.cli.options.PATIENCE_S", math.inf)


SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference facts and traces beside the checkout; tests that need it skip without it."""
    if not SHARED.is_dir():
        pytest.skip("needs the reference folder ../shared, which a clone does not have")
    return SHARED


@pytest.fixture
def small_spec() -> WorkloadSpec:
    """Four buckets on the published Llama-2-7b profiles at the paper's prices."""
    return _small_spec()


@pytest.fixture(scope="module")
def module_spec() -> WorkloadSpec:
    """The same, for what a module's tests share."""
    return _small_spec()


def _small_spec() -> WorkloadSpec:
    grid = SizeGrid(input_edges_tokens=(100, 1000), output_edges_tokens=(100, 500))
    edges_in, edges_out = grid.upper_edges()
    workload = Workload(
        name="small",
        grid=grid,
        rate_rps=np.array([[2.0, 1.0], [0.5, 0.0]]),
        mean_input_tokens=edges_in * 0.6,
        mean_output_tokens=edges_out * 0.5,
        mean_product_tokens2=edges_in * edges_out * 0.3,
        mean_cached_tokens=np.zeros(grid.shape),
        slo=Slo(tpot_s=0.12, tpot_definition="e2e_per_token"),
        model="llama-2-7b",
    )
    return WorkloadSpec(
        workload=workload,
        profiles=ProfileChoice(set="melange-2024/llama-2-7b", assume_slo=True, reason="a test"),
        prices=PriceChoice(price_set="paper-2024"),
    )
