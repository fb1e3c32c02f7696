"""``melange calibrate`` as users call it."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from melange.cli.calibrate import calibrate
from melange.cli.estimate import estimate
from melange.errors import InputError
from melange.measurements.file import append_measurements
from melange.perfmodel.calibrate import read_sets
from melange.perfmodel.calibration import read_calibration


def run(command, *arguments):
    result = CliRunner().invoke(command, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def test_calibrate_writes_what_estimate_reads(tmp_path):
    file = tmp_path / "c.yaml"
    text = run(calibrate, "melange-2024/llama-2-7b", "--gpu", "A10G", "--max-input-tokens", 2000, "-o", file)
    assert "throughput-only" in text
    assert "Median error on held-out points" in text
    calibration = read_calibration(file)
    assert calibration.provenance["gpus"] == ["A10G"]
    assert calibration.provenance["engine_versions"] == ["0.2.7"]
    again = run(estimate, "--model", "llama-2-7b", "--gpu", "L4", "--grid", "250,1000x100", "--calibration", file)
    assert "calibrated on melange-2024/llama-2-7b (throughput-only" in " ".join(again.split())


def test_calibrating_on_too_little_writes_nothing(tmp_path):
    points = [point for file in read_sets(["melange-2024/llama-2-7b"]) for point in file.points]
    append_measurements(tmp_path / "few.jsonl", None, points[:4])
    with pytest.raises(InputError, match="4 usable load points"):
        run(calibrate, tmp_path / "few.jsonl", "-o", tmp_path / "c.yaml")
    assert not (tmp_path / "c.yaml").exists()
