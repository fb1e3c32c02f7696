"""What ``melange profile`` shows while it measures."""

from __future__ import annotations

from dataclasses import replace

import pytest

from melange.cli.profile_progress import progress_display
from melange.measurements.measurement import LatencyStats, Measurement
from melange.profiler.load import Load, Size
from melange.profiler.session import Progress
from melange.slo import Slo

SLO = Slo(tpot_s=0.05, tpot_definition="decode")
SIZE = Size(100, 20)
POINT = Measurement(
    model="m",
    gpu="L4",
    input_tokens=100,
    output_tokens=20,
    offered_rps=2.0,
    achieved_rps=2.0,
    tpot_decode_s=LatencyStats(mean=0.03),
)
BEGUN = Progress(cell=1, cells=3, size=SIZE, load=Load(size=SIZE, rate_rps=2.0, max_s=9.0))


@pytest.fixture
def said(capsys):
    def lines(*steps):
        with progress_display(SLO) as show:
            for step in steps:
                show(step)
        return capsys.readouterr().err.splitlines()

    return lines


def test_plain_lines_tell_the_slo_and_each_point(said):
    first, line = said(BEGUN, replace(BEGUN, point=POINT))
    assert first == f"SLO: {SLO.describe()}"
    assert line.startswith("cell 1/3, 100 -> 20 tokens: 2 req/s: ")
    assert "30" in line


def test_an_invalid_point_gives_its_reason(said):
    bad = replace(POINT, valid=False, invalid_reason="the client fell behind")
    assert said(replace(BEGUN, point=bad))[-1].endswith(": the client fell behind")


class Capacity:
    def describe(self):
        return "holds 2 req/s"


@pytest.mark.parametrize(
    ("spent", "text"),
    [
        ({"spent_s": 90.0}, "[1.5 min]"),
        ({"spent_s": 90.0, "spent_usd": 0.5, "left_s": 120.0}, "[1.5 min, $0.50, 2.0 min left]"),
        ({"left_s": -5.0}, "[0.0 min, 0.0 min left]"),
    ],
)
def test_a_cell_that_is_done_tells_what_it_took(said, spent, text):
    line = said(replace(BEGUN, capacity=Capacity(), **spent))[-1]
    assert line == f"cell 1/3, 100 -> 20 tokens: holds 2 req/s {text}"
