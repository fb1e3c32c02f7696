"""The overlapped clock: hand arithmetic, agreement with the search, and never slower than one batch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melange.catalog.hardware import load_catalog
from melange.errors import InputError
from melange.files.shipped import data_path
from melange.nanoflow.operation_times import OperationTimes
from melange.nanoflow.pipeline_search import search_pipeline
from melange.perfmodel.clock import StepClock
from melange.perfmodel.interference import Interference, read_interference
from melange.perfmodel.overlap import LAUNCH_S, overlapped_clock
from melange.perfmodel.steady import SteadyState
from melange.slo import Slo

AUTHORS = read_interference(data_path("profiles/nanoflow/interference-authors.yaml"))


def clock(**changes: float) -> StepClock:
    figures = {
        "overhead_s": 0.5,
        "per_sequence_s": 0.0,
        "per_request_s": 0.0,
        "weights_s": 0.001,
        "kv_read_s_per_token": 0.01,
        "compute_s_per_token": 1.0,
        "attention_s_per_pair": 1e-9,
        "overlap_exponent": float("inf"),
        "kv_capacity_tokens": 100_000,
    }
    return StepClock(**(figures | changes))  # type: ignore[arg-type]


def test_overlap_by_hand() -> None:
    """Dense work 10 in halves of 5; attention 4 at half the device, where it keeps its speed: 10 + 4 x 0.5 = 12."""
    table = Interference(gpu="g", source="a test", memory=((0.5, 1.0),))
    both = overlapped_clock(clock(), table, layers=2)
    sequential = clock().iteration_s(decodes=10, kv_tokens=400)
    assert sequential == pytest.approx(0.5 + 10 + 4)
    assert both.iteration_s(decodes=10, kv_tokens=400) == pytest.approx(0.5 + 12 + 2 * 6 * LAUNCH_S)


def test_attention_longer_than_the_dense_work_bounds_the_iteration() -> None:
    """Attention 40 at half the device: 40 where that costs it nothing, the dense work 10 hidden behind it.

    Where it slows to 0.8 it takes 50, as long as one after the other, which then stays.
    """
    for reached, expected in ((1.0, 40 + 2 * 6 * LAUNCH_S), (0.8, 50)):
        table = Interference(gpu="g", source="a test", memory=((0.5, reached),))
        both = overlapped_clock(clock(), table, layers=2)
        assert both.iteration_s(decodes=10, kv_tokens=4000) == pytest.approx(0.5 + expected, abs=1e-9)


def test_weights_read_twice_keep_one_batch() -> None:
    """Reading weights takes 100 per nano-batch: two nano-batches cost 100 more and hide 4."""
    both = overlapped_clock(clock(weights_s=100.0), AUTHORS, layers=2)
    one = clock(weights_s=100.0).iteration_s(decodes=10, kv_tokens=400)
    assert both.iteration_s(decodes=10, kv_tokens=400) == one


@settings(max_examples=100, deadline=None)
@given(
    decodes=st.integers(0, 500),
    context=st.integers(1, 5000),
    prefill=st.integers(0, 2000),
    collective=st.floats(0, 1.0),
    weights=st.floats(0.001, 100),
)
def test_never_slower_than_one_batch_nor_faster_than_any_resource(
    decodes: int, context: int, prefill: int, collective: float, weights: float
) -> None:
    one = clock(collective_s_per_token=collective, weights_s=weights)
    both = overlapped_clock(one, AUTHORS, layers=2, tp=2)
    load = {"decodes": decodes, "kv_tokens": decodes * context, "prefill_tokens": prefill}
    sequential, overlapped = one.iteration_s(**load), both.iteration_s(**load)
    tokens = decodes + prefill
    assert overlapped <= sequential
    assert overlapped >= 0.5 + max(one.gemm_s(tokens), 0.01 * decodes * context, collective * tokens) * (1 - 1e-12)


def test_agrees_with_the_search_on_the_measured_times() -> None:
    """Stage II over every split of the measured A100 layer, beside the closed form fed with the same totals."""
    from melange.nanoflow.operation_times import read_operation_times

    times: OperationTimes = read_operation_times(data_path("profiles/nanoflow/a100-llama-3-8b-times.yaml"))
    for name in ("paper", "authors"):
        table = read_interference(data_path(f"profiles/nanoflow/interference-{name}.yaml"))
        found = search_pipeline(times, table, batch_tokens=1024, decode_tokens=384, every_split=True)
        halves = sum(2 * times.seconds(kind, 512) for kind in ("kqv", "o", "up_gate", "down"))
        same = clock(
            overhead_s=0.0,
            weights_s=1e-9,
            compute_s_per_token=(halves + 0.0625e-3) / 1024,
            kv_read_s_per_token=0.997e-3 / (384 * 1024),
        )
        both = overlapped_clock(same, table, layers=1)
        load = {"decodes": 384, "kv_tokens": 384 * 1024, "prefill_tokens": 640}
        closed = float(both.iteration_s(**load)) - 6 * LAUNCH_S
        assert closed == pytest.approx(found.pipeline.stage2_s, rel=0.02)


def test_rates_under_an_slo_never_fall() -> None:
    from melange.perfmodel.hardware import ModelledEngine, step_clock

    catalog = load_catalog()
    sizes = np.meshgrid([100.0, 1000.0, 4000.0], [100.0, 500.0, 2000.0], indexing="ij")
    gains = {}
    for gpu in ("L4", "A100-80GB"):
        one = step_clock(ModelledEngine(model=catalog.model("llama-3-8b"), gpu=catalog.gpu(gpu)))
        both = overlapped_clock(one, AUTHORS, layers=32)
        rates = [SteadyState(each, *sizes).max_rate_rps(Slo(tpot_s=0.15)) for each in (one, both)]
        assert (rates[1] >= rates[0] * (1 - 1e-4)).all()
        gains[gpu] = float((rates[1] / rates[0]).max())
    assert gains["A100-80GB"] > 1.02
    assert gains["L4"] < gains["A100-80GB"]


def test_a_table_without_a_memory_curve_is_refused() -> None:
    with pytest.raises(InputError, match="no memory curve"):
        overlapped_clock(clock(), Interference(gpu="g", source="a test"), layers=2)
