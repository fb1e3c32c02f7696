"""The nearest public measurement: same GPU always, then model, precision, TP and engine before size and load."""

from __future__ import annotations

from dataclasses import replace

import pytest

from melange.catalog.hardware import load_catalog
from melange.measurements.public import shipped_points
from melange.perfmodel.estimate import steady_state
from melange.perfmodel.hardware import ModelledEngine
from melange.perfmodel.load import Load
from melange.perfmodel.nearest import PublicPoints
from melange.perfmodel.published import engine_of, load_of, measured_figures, predicted_figures

CATALOG = load_catalog()
POINT = replace(
    next(point for point in shipped_points() if point.load == "closed"),
    engine="vllm", engine_version="0.11.0", gpu="H100", model="llama-3.1-8b", tp=1, precision="bf16", kv_dtype="auto",
    engine_args=(), requests=1000, input_tokens=1000.0, output_tokens=1000.0, concurrency=64.0, rate_rps=None,
    output_tokens_per_s=4000.0, ttft_s=0.05, tpot_s=0.016,
)  # fmt: skip
MODELLED = ModelledEngine(model=CATALOG.model("llama-3.1-8b"), gpu=CATALOG.gpu("H100"), precision="bf16")


def nearest(*points, size=(1000.0, 1000.0), load=None, rate=4.0):
    return PublicPoints(MODELLED, points=points).nearest(*size, load or Load(concurrency=64), rate)


def test_the_very_same_is_at_no_distance_and_differs_in_nothing():
    found = nearest(replace(POINT, input_tokens=900.0), POINT)
    assert (found.point, found.distance, found.differs) == (POINT, 0.0, ())
    assert found.measured.output_tokens_per_s == 4000.0
    state = steady_state(engine_of(POINT), 1000, 1000)
    assert found.predicted.output_tokens_per_s == pytest.approx(float(state.clients(64).rate_rps) * 1000, rel=1e-4)


def test_16_bits_are_16_bits():
    assert nearest(replace(POINT, precision="fp16")).differs == ()


def test_another_gpu_is_never_near():
    assert nearest(replace(POINT, gpu="H200")) is None
    assert len(PublicPoints(MODELLED, points=[replace(POINT, gpu="H200"), POINT])) == 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model": "llama-3-70b", "tp": 4}, "model llama-3-70b (70.6B active, not 8.03B)"),
        ({"precision": "fp8"}, "fp8, not bf16"),
        ({"tp": 2}, "TP 2, not 1"),
        ({"engine": "sglang"}, "sglang, not vllm"),
        ({"concurrency": 8.0}, "concurrency 8, not concurrency 64"),
        ({"input_tokens": 5000.0}, "5000/1000 tokens, not 1000/1000"),
    ],
)
def test_what_differs_is_said_and_the_same_is_nearer(change, says):
    other = replace(POINT, **change)
    assert says in nearest(other).differs
    assert nearest(other, POINT).point == POINT


def test_model_precision_and_tp_count_more_than_twice_the_size():
    doubled = replace(POINT, input_tokens=2000.0)
    for change in ({"model": "llama-3-70b"}, {"precision": "fp8"}, {"tp": 4}):
        assert nearest(replace(POINT, **change), doubled).point == doubled


def test_loads_of_two_kinds_are_compared_by_their_rates():
    of_open = replace(POINT, load="open", concurrency=None, rate_rps=0.1, output_tokens_per_s=None)
    slow, fast = of_open, replace(of_open, rate_rps=4.0)
    assert nearest(slow, fast).point == fast


def test_of_a_prompt_alone_it_is_the_nearest_ttft():
    batch = replace(POINT, load="batch", output_tokens=1.0)
    assert nearest(batch, size=(1000.0, 1.0)) is None
    assert nearest(batch, POINT, size=(1000.0, 1.0)).point == POINT


def test_batches_bursts_and_short_runs_are_compared_by_throughput_alone():
    for change in ({"load": "batch"}, {"load": "burst"}, {"requests": 100}):
        figures = measured_figures(replace(POINT, **change))
        assert (figures.output_tokens_per_s, figures.ttft_s, figures.tpot_decode_s) == (4000.0, None, None)
    assert load_of(replace(POINT, load="burst")) == Load()
    assert load_of(replace(POINT, load="batch")) == Load(concurrency=64.0)


def test_predictions_past_saturation_have_no_ttft():
    beyond = replace(POINT, load="open", concurrency=None, rate_rps=1e4)
    found = predicted_figures(beyond)
    assert found.ttft_s is None
    assert found.output_tokens_per_s == predicted_figures(replace(POINT, load="burst")).output_tokens_per_s


def test_what_ships_can_all_be_modelled():
    for point in shipped_points()[::25]:
        assert predicted_figures(point).output_tokens_per_s > 0
