"""The program of one split: its optimum, its bound, and the period of its cycle."""

from __future__ import annotations

from unittest import mock

import pytest

from melange.catalog.hardware import load_catalog
from melange.files.shipped import data_path
from melange.nanoflow import pipeline_milp
from melange.nanoflow.modelled_times import modelled_times
from melange.nanoflow.nano_graph import NanoGraph
from melange.nanoflow.operation_times import OperationTimes, read_operation_times
from melange.nanoflow.pipeline_milp import solve_split, tightest
from melange.perfmodel.interference import Interference, read_interference

A100_TIMES = data_path("profiles/nanoflow/a100-llama-3-8b-times.yaml")
AUTHORS = read_interference(data_path("profiles/nanoflow/interference-authors.yaml"))


def test_the_valid_inequalities_cut_off_no_optimum() -> None:
    """The plain formulation, without them, proves the same period."""
    times, interference = read_operation_times(A100_TIMES), AUTHORS
    graph = NanoGraph.of(times, splits=(384, 1024), decode_tokens=384)
    curves = interference.curves(collectives=False)
    found = solve_split(graph, curves, cutoff_s=graph.serial_s(), time_limit_s=60)
    with mock.patch.object(pipeline_milp._Model, "_bound", return_value=None):
        plain = solve_split(graph, curves, cutoff_s=graph.serial_s(), time_limit_s=60)
    assert found.gap < 1e-6
    assert plain.gap < 1e-6
    assert found.period_s == pytest.approx(plain.period_s, rel=1e-6)


def test_the_time_limit_leaves_an_honest_gap() -> None:
    catalog = load_catalog()
    times = modelled_times(
        catalog.model("llama-2-70b"), catalog.gpu("A100-80GB"), tp=8, context_tokens=1024, prompt_tokens=512
    )
    graph = NanoGraph.of(times, splits=(1024, 2048), decode_tokens=1365)
    stopped = solve_split(graph, AUTHORS.curves(), cutoff_s=graph.serial_s(), time_limit_s=0.3)
    assert stopped.gap > 1e-3
    assert stopped.bound_s < stopped.period_s
    if stopped.schedule is not None:
        assert stopped.period_s <= graph.serial_s() * (1 + 1e-9)


def test_tightest_period_of_a_cycle_by_hand() -> None:
    """Two operations of 2 and 3 that wait for each other once around: the period is 5, the starts 0 and 2."""
    period, starts = tightest(2, [(0, 1, 2.0, 0), (1, 0, 3.0, 1)], above=0.0, below=20.0)
    assert period == pytest.approx(5.0)
    assert starts == pytest.approx([0.0, 2.0])


def halves() -> NanoGraph:
    """Two nano-batches of one token: dense operations take 1 each, attention 4, on the memory."""
    seconds = {"kqv": 1.0, "decode_attention": 4.0, "prefill_attention": 1.0, "o": 1.0, "up_gate": 1.0, "down": 1.0}
    points = {kind: ((1.0, s), (2.0, 2 * s)) for kind, s in seconds.items()}
    times = OperationTimes(model="m", gpu="g", context_tokens=100, points=points, source="a test")  # type: ignore[arg-type]
    return NanoGraph.of(times, splits=(1, 2), decode_tokens=2)


def test_stage_one_hides_each_attention_behind_the_other_half() -> None:
    graph = halves()
    found = solve_split(graph, cutoff_s=graph.serial_s(), time_limit_s=60)
    assert found.period_s == pytest.approx(8)
    assert found.gap < 1e-9
    schedule = found.schedule
    assert schedule is not None
    assert set(schedule.shares) == {1.0}
    assert schedule.durations_s == tuple(task.best_s for task in graph.tasks)
    for i, j, closes in graph.edges:
        waits = schedule.lags[j] - schedule.lags[i] + int(closes)
        assert schedule.starts_s[j] + waits * 8 >= schedule.starts_s[i] + schedule.durations_s[i] - 1e-6


def test_a_kept_order_is_never_better() -> None:
    graph = halves()
    curves = Interference(gpu="g", source="a test", memory=((0.5, 1.0),)).curves(collectives=False)
    order = solve_split(graph, cutoff_s=graph.serial_s(), time_limit_s=60).schedule
    free = solve_split(graph, curves, cutoff_s=graph.serial_s(), time_limit_s=60)
    kept = solve_split(graph, curves, cutoff_s=graph.serial_s(), time_limit_s=60, order=order)
    assert free.period_s == pytest.approx(12)
    assert kept.period_s >= free.period_s - 1e-9


@pytest.mark.parametrize("cutoff_s", [3.0, 7.9])
def test_nothing_lies_below_the_cutoff(cutoff_s: float) -> None:
    found = solve_split(halves(), cutoff_s=cutoff_s, time_limit_s=60)
    assert found.schedule is None
    assert found.period_s == found.bound_s == cutoff_s
    assert not found.timed_out


def test_no_period_fits_where_a_cycle_takes_longer() -> None:
    with pytest.raises(ArithmeticError, match="no schedule has a period of 4"):
        tightest(2, [(0, 1, 2.0, 0), (1, 0, 3.0, 1)], above=0.0, below=4.0)
