"""``melange limits`` as users call it."""

from __future__ import annotations

import json

from click.testing import CliRunner

from melange.cli.limits import limits
from melange.measurements.file import append_measurements
from melange.perfmodel.calibrate import read_sets


def run(command, *arguments):
    result = CliRunner().invoke(command, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def test_limits_marks_the_impossible(tmp_path):
    assert "IMPOSSIBLE" not in run(limits, "melange-2024/llama-2-7b")
    points = [point for file in read_sets(["melange-2024/llama-2-7b"]) for point in file.points]
    from dataclasses import replace

    append_measurements(tmp_path / "m.jsonl", None, [points[0], replace(points[1], achieved_rps=1e4)])
    found = json.loads(run(limits, tmp_path / "m.jsonl", "-o", "json"))["limits"]
    assert [row["impossible"] for row in found] == [False, True]
    only = run(limits, tmp_path / "m.jsonl", "--impossible", "-o", "csv").splitlines()
    assert len(only) == 2
    result = CliRunner().invoke(limits, [str(tmp_path / "m.jsonl")])
    assert "1 of 2 throughputs are physically impossible" in result.stderr
