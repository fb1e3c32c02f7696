"""A profile is checked on engines that are as they were, and slower."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("aiohttp")

from profiler.bench import SUBJECT, Bench, simulated

from melange.errors import EngineError, InputError
from melange.measurements.file import append_measurements, read_measurements
from melange.measurements.measurement import Measurement
from melange.profiler import check
from melange.profiler.check import CheckResult, check_measurements, choose_sentinels, measured_again
from melange.profiler.load import ClientHealth, Load, LoadRun
from melange.profiler.loadgen import Stop, Tick
from melange.profiler.runner import ServerRequest
from melange.testing.fault_server import FaultServer
from melange.testing.simulated_engine import SimulatedEngine


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory) -> list[Measurement]:
    path = tmp_path_factory.mktemp("check") / "a.jsonl"
    Bench().profile(path)
    return list(read_measurements(path).points)


def test_sentinels_are_the_highest_loads_that_kept_up_of_the_extreme_sizes_first(points: list[Measurement]) -> None:
    chosen = choose_sentinels(points, 2)
    assert {(p.input_tokens, p.output_tokens) for p in chosen} == {(32, 16), (256, 16)}
    for point in chosen:
        size = (point.input_tokens, point.output_tokens)
        same = [p for p in points if (p.input_tokens, p.output_tokens) == size and p.loop == "open" and not p.saturated]
        assert point.loop == "open"
        assert point.achieved_rps == max(p.achieved_rps for p in same)
    assert len(choose_sentinels(points, 9)) == 3


@pytest.mark.parametrize(("engine", "holds"), [(SimulatedEngine(), True), (SimulatedEngine(step_s=0.03), False)])
def test_the_same_engine_holds_and_a_slower_one_does_not(
    points: list[Measurement], engine: SimulatedEngine, holds: bool
) -> None:
    chosen = choose_sentinels(points, 3)
    measure = Bench(engine=engine).measure
    found = measured_again(chosen, measure, SUBJECT, tolerance=0.1, seed=1)
    assert len(found) == 6
    assert all(c.holds for c in found if c.quantity == "TPOT (decode)") == holds
    assert CheckResult(comparisons=found, version_then="1", version_now="2").holds == holds
    asked = {f"{p.nominal_rps:.3g} req/s" for p in chosen}
    assert {c.load for c in found} == asked  # the rate that was asked for, not the one that came


def test_a_load_that_the_client_disturbed_is_not_compared(points: list[Measurement]) -> None:
    def measure(load: Load, stop: Stop, tick: Tick) -> LoadRun:
        return replace(SimulatedEngine().run(load, stop), health=ClientHealth(busy_share=0.99))

    with pytest.raises(EngineError, match="cannot be compared: client bottleneck"):
        measured_again(choose_sentinels(points, 1), measure, SUBJECT, tolerance=0.1, seed=1)


def test_a_file_is_checked_for_the_servers_configuration(
    points: list[Measurement], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "live_measure", simulated())
    file = tmp_path / "a.jsonl"
    append_measurements(file, None, [replace(p, model="fault", gpu="L4", engine_version="old") for p in points])
    with FaultServer() as server:
        result = check_measurements(file, ServerRequest(url=server.url, gpu="L4"), sentinels=2)
        with pytest.raises(InputError, match="no load points of fault on 1xH100"):
            check_measurements(file, ServerRequest(url=server.url, gpu="H100"))
    assert result.holds
    assert (result.version_then, result.version_now) == ("old", "fault-1")
