"""Calibrations: what they hold, what they refuse, and their files."""

from __future__ import annotations

from dataclasses import replace

import pytest

from melange.errors import InputError
from melange.files.records import to_plain
from melange.perfmodel.calibration import Calibration, read_calibration, write_calibration
from melange.serving.efficiencies import Efficiencies
from melange.serving.engine_settings import VLLM_0_2


def test_calibration_files_round_trip(tmp_path):
    result = Calibration(
        name="mine",
        efficiencies=replace(Efficiencies(), gemm_scale=0.6123),
        spreads={**Calibration().spreads, "gemm_scale": 0.0123},
        fitted=("gemm_scale",),
        label="full",
        settings=VLLM_0_2,
        model_error=0.123,
        errors={"held_out_median": 0.04},
        provenance={"date": "2026-11-22"},
    )
    write_calibration(tmp_path / "c.yaml", result)
    again = read_calibration(tmp_path / "c.yaml")
    assert again.fitted == result.fitted
    assert again.label == result.label
    assert again.settings == result.settings
    assert again.provenance == result.provenance
    assert again.errors == result.errors
    assert again.spreads["gemm_scale"] == 0.0123
    assert again.model_error == 0.123
    assert again.name == "mine"
    for name, value in to_plain(result.efficiencies).items():
        assert getattr(again.efficiencies, name) == pytest.approx(value, rel=1e-4)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("version: 1", "version: 9", r"c\.yaml:2:.* version is 9"),
        ("label: prior", "label: guess", "label is 'guess'"),
        ("  gemm_scale:", "  gem_scale:", "'gem_scale' is unknown"),
        ("value: 0.85", "value: 7.5", "it lies between"),
        ("value: 0.85", "value: fast", r"c\.yaml:\d+:.* has no number 'value'"),
        ("model_error:", "mistake:", "not a calibration"),
    ],
)
def test_broken_calibration_files_are_one_clear_line(tmp_path, old, new, problem):
    write_calibration(tmp_path / "c.yaml", Calibration())
    text = (tmp_path / "c.yaml").read_text()
    assert old in text
    (tmp_path / "c.yaml").write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match=problem):
        read_calibration(tmp_path / "c.yaml")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spreads": {"gemm_scale": 0.1}}, "spreads do not cover"),
        ({"spreads": {**Calibration().spreads, "gemm_scale": -0.1}}, "spreads do not cover"),
        ({"fitted": ("gem_scale",)}, "unknown efficiency 'gem_scale'"),
        ({"label": "guess"}, "label is 'guess'"),
        ({"model_error": -0.1}, "model_error is -0.1"),
        ({"model_error": float("nan")}, "model_error is nan"),
    ],
)
def test_what_is_no_calibration(change, message):
    with pytest.raises(InputError, match=message):
        Calibration(**change)


def test_it_says_what_it_rests_on():
    assert Calibration().describe() == "from public measurements of kernels and engines, not calibrated"
    assert Calibration(clock="datasheet").describe() == "from datasheets, not calibrated"
    fitted = Calibration(name="mine", label="full", errors={"held_out_median": 0.05})
    assert fitted.describe() == "calibrated on mine (full; held-out error 0.05)"
    rows = Calibration(label="full", fitted=("gemm_scale",)).to_dict()["efficiencies"]
    assert {name for name, row in rows.items() if row["from"] == "data"} == {"gemm_scale"}
