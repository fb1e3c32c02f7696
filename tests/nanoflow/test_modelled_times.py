"""Operation times from the cost model, against arithmetic done by hand and the measured layer."""

from __future__ import annotations

import pytest

from melange.catalog.hardware import load_catalog
from melange.errors import InputError
from melange.files.shipped import data_path
from melange.nanoflow.modelled_times import modelled_times
from melange.nanoflow.operation_times import read_operation_times
from melange.perfmodel.calibration import Calibration
from melange.serving.efficiencies import Efficiencies


def test_modelled_times_read_the_weights_once_per_nano_batch() -> None:
    catalog = load_catalog()
    times = modelled_times(catalog.model("llama-3-8b"), catalog.gpu("L4"), context_tokens=500, prompt_tokens=400)
    weights_s = 2 * 4096 * 2 * 14336 / (300e9 * Efficiencies().bandwidth_share)
    assert times.seconds("up_gate", 64) > weights_s
    assert 2 * times.seconds("up_gate", 64) > 1.9 * times.seconds("up_gate", 128)


def test_modelled_times_are_rooflines_plus_a_launch() -> None:
    """An A100 with GEMMs at 0.835 x 0.8 of 312 TFLOPS and everything else at 0.5, by hand.

    KQV of 4096 tokens: 2 x 4096 x 4096 x 6144 / 208.4e12 = 989.2 us. Decode attention of 384 requests at context 1024:
    384 x (1025 x 4096 + 2 x 8192) bytes / 1019.5e9 = 1587.5 us. Prefill attention of 640 tokens of one prompt:
    2 x 640 x 640 x 4096 FLOP (half of the pairs) / 130.3e12 = 25.8 us. 5 us each for the launch.
    """
    catalog = load_catalog()
    efficiencies = Efficiencies(gemm_scale=0.8, attention_share=0.5, kv_bandwidth_share=0.5, bandwidth_share=0.5)
    times = modelled_times(
        catalog.model("llama-3-8b"),
        catalog.gpu("A100-80GB"),
        context_tokens=1024,
        prompt_tokens=640,
        calibration=Calibration(efficiencies=efficiencies),
    )
    assert times.seconds("kqv", 4096) == pytest.approx(994.2e-6, rel=1e-3)
    assert times.seconds("decode_attention", 384) == pytest.approx(1592.5e-6, rel=1e-3)
    assert times.seconds("prefill_attention", 640) == pytest.approx(30.8e-6, rel=1e-2)
    assert times.source.startswith("modelled, not measured")


def test_modelled_times_are_near_the_measured_ones() -> None:
    """Nothing was fitted: priors, beside the published A100 layer, within a quarter in all."""
    measured = read_operation_times(data_path("profiles/nanoflow/a100-llama-3-8b-times.yaml"))
    catalog = load_catalog()
    modelled = modelled_times(
        catalog.model("llama-3-8b"), catalog.gpu("A100-80GB"), context_tokens=1024, prompt_tokens=640
    )
    totals = [sum(times.layer_seconds(384, 640).values()) for times in (measured, modelled)]
    assert totals[1] == pytest.approx(totals[0], rel=0.25)


def test_modelled_times_need_heads_that_divide() -> None:
    catalog = load_catalog()
    with pytest.raises(InputError, match="do not divide"):
        modelled_times(catalog.model("llama-3-8b"), catalog.gpu("H100"), context_tokens=9, prompt_tokens=9, tp=3)
