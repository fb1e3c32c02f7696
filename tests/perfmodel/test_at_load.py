"""Estimates under a stated load: the steady state's figures, bands, and what is not kept or does not fit."""

from __future__ import annotations

import json
import math

import pytest

from melange import InputError, Load, estimate, estimate_at_load, load_catalog
from melange.perfmodel.estimate import steady_state
from melange.perfmodel.hardware import ModelledEngine

SIZES = {"input_tokens": [1000.0], "output_tokens": [200.0]}


def one(load, gpu="H100", **given):
    (row,) = estimate_at_load("llama-3.1-8b", gpu, [load], **{**SIZES, **given}).rows
    return row


def state(gpu="H100"):
    catalog = load_catalog()
    modelled = ModelledEngine(model=catalog.model("llama-3.1-8b"), gpu=catalog.gpu(gpu), precision="bf16")
    return steady_state(modelled, 1000, 200)


def test_a_closed_loop_is_the_steady_states():
    row, point = one(Load(concurrency=32)), state().clients(32)
    assert row.rate_rps == float(point.rate_rps)
    assert (row.ttft_s, row.e2e_s, row.tpot_decode_s) == (
        float(point.ttft_s), float(point.e2e_s), float(point.tpot_decode_s),
    )  # fmt: skip
    assert row.output_tokens_per_s == row.rate_rps * 200
    assert row.kept
    assert row.low_rps < row.rate_rps < row.high_rps


def test_more_clients_than_slots_wait():
    row = one(Load(concurrency=5000))
    assert row.slots < 5000
    assert row.rate_rps * row.e2e_s == pytest.approx(5000, rel=0.01)


def test_a_rate_that_is_kept_is_served_whole_and_its_band_ends_at_it():
    saturation = float(state().saturation_rps)
    row = one(Load(rate_rps=saturation * 0.9))
    assert row.kept
    assert row.rate_rps == row.high_rps == saturation * 0.9
    assert row.low_rps < row.rate_rps
    slow = one(Load(rate_rps=saturation * 0.1))
    assert slow.low_rps == slow.rate_rps == slow.high_rps


def test_a_rate_above_saturation_is_not_kept_and_nothing_is_infinite():
    row = one(Load(rate_rps=1e5))
    assert not row.kept
    assert row.rate_rps == row.saturation_rps == pytest.approx(float(state().saturation_rps))
    assert (row.ttft_s, row.e2e_s) == (None, None)
    assert all(not isinstance(value, float) or math.isfinite(value) for value in row.row().values())
    json.dumps(row.to_dict(), allow_nan=False)


def test_the_highest_rate_and_its_band_are_those_of_estimate():
    row = one(Load())
    table = estimate("llama-3.1-8b", "H100", **SIZES).profile.configs[row.key]
    assert row.rate_rps == pytest.approx(table.max_rate_rps[0, 0])
    assert row.low_rps == pytest.approx(table.low_rps[0, 0])
    assert row.high_rps == pytest.approx(table.high_rps[0, 0])


def test_what_bounds_the_slots():
    assert one(Load(), "L4").bound == "kv cache"
    assert one(Load(), "B300", input_tokens=[10.0]).bound == "sequences"
    assert one(Load(), "H100", batched_tokens=[256], input_tokens=[3000.0], output_tokens=[2.0]).bound == "token budget"
    assert one(Load(), output_tokens=[1.0]).bound == "token budget"


def test_one_token_of_output_is_a_prompt_alone():
    row = one(Load(concurrency=1), output_tokens=[1.0])
    assert row.tpot_decode_s is None
    assert row.ttft_s == row.e2e_s == pytest.approx(1 / row.rate_rps)


def test_what_does_not_fit_says_so_and_is_zero():
    row = one(Load(concurrency=4), input_tokens=[200_000.0])
    assert (row.fits, row.kept, row.rate_rps, row.slots, row.bound, row.ttft_s) == (False, False, 0.0, 0.0, None, None)


def test_two_gpus_share_the_throughput():
    row = one(Load(concurrency=8), tp=[2])
    assert row.output_tokens_per_s_per_gpu == row.output_tokens_per_s / 2


def test_a_gpu_without_public_measurements_has_no_nearest():
    assert one(Load(concurrency=8), "B300").nearest is None
    assert one(Load(concurrency=8)).nearest.point.gpu == "H100"


@pytest.mark.parametrize("size", [0.0, -5.0, math.nan, math.inf, 1e300])
def test_sizes_beyond_any_request_are_refused(size):
    with pytest.raises(InputError, match="a request size is"):
        one(Load(), input_tokens=[size])


def test_no_load_is_refused_and_rows_are_in_the_order_asked():
    with pytest.raises(InputError, match="no load"):
        estimate_at_load("llama-3.1-8b", "H100", [], **SIZES)
    loads = [Load(concurrency=4), Load(concurrency=2)]
    found = estimate_at_load("llama-3.1-8b", ["L4", "H100"], loads, **SIZES)
    assert [(row.key.gpu, row.load.concurrency) for row in found.rows] == [
        ("L4", 4), ("L4", 2), ("H100", 4), ("H100", 2),
    ]  # fmt: skip
    assert "4 rows" in repr(found)
