"""Calibrated on load points of a real vLLM (its CPU build), the model predicts those it was not shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from melange.catalog.described import extended_catalog
from melange.catalog.hardware import load_catalog
from melange.measurements.file import read_measurements
from melange.perfmodel.calibrate import calibrate, fit, group_points, points_of, predict, split
from melange.serving.efficiencies import Efficiencies
from melange.serving.engine_settings import EngineSettings

HERE = Path(__file__).parent / "vllm_cpu"
SETTINGS = EngineSettings(max_num_seqs=256, max_batched_tokens=2048, max_model_len_tokens=2048)


@pytest.fixture(scope="module")
def catalog():
    return extended_catalog(load_catalog(), [HERE / "gpus.yaml"], [HERE / "config.json"])


@pytest.fixture(scope="module")
def points():
    return points_of(read_measurements(HERE / "measurements.jsonl"))


def test_held_out_load_points_are_predicted(points, catalog):
    result = calibrate(points, name="vLLM on a CPU", catalog=catalog, settings=SETTINGS)
    assert result.label == "full"
    # The repeats of one rate differ by 6% in the median and by 15% at most.
    assert result.errors["held_out_median"] < 0.15
    assert result.errors["held_out_p90"] < 0.3


def test_low_loads_predict_high_ones(points, catalog):
    (group,) = group_points(points, catalog=catalog, settings=SETTINGS)
    kept, out = split([group], group.rate_rps > 5)
    calibrated = np.abs(np.expm1(predict(out[0], fit(kept).efficiencies).headline()))
    prior = np.abs(np.expm1(predict(out[0], Efficiencies()).headline()))
    assert np.median(calibrated) < 0.35
    assert np.median(calibrated) < np.median(prior)
