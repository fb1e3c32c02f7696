"""What engines that overlap nano-batches change in a fleet."""

from __future__ import annotations

import pytest

from melange.analysis.nanobatching import compare_nanobatching
from melange.planning.spec import WorkloadSpec
from melange.planning.workload_file import load_workload


def test_solving_twice_says_what_changes() -> None:
    compared = compare_nanobatching(load_workload("arena-120ms").with_rate(32))
    saving = compared.saving_usd_per_hour
    assert saving is not None
    assert saving > 0
    assert compared.fleet_change
    assert {config.engine for config in compared.without.configs.values()} == {"vllm"}
    assert {config.engine for config in compared.mixed.configs.values()} == {"vllm", "nanoflow"}
    assert "predicted, not measured" in compared.describe()


def test_a_fleet_that_nano_batching_does_not_change_says_so(small_spec: WorkloadSpec) -> None:
    compared = compare_nanobatching(small_spec)
    assert compared.saving_usd_per_hour == pytest.approx(0, abs=1e-9) or compared.fleet_change
    if not compared.fleet_change:
        assert "the same fleet" in compared.describe()
