"""Reading, interpolating and writing operation times."""

from __future__ import annotations

from pathlib import Path

import pytest

from melange.errors import InputError
from melange.files.shipped import data_path
from melange.nanoflow.operation_times import OperationTimes, read_operation_times, write_operation_times

SHIPPED = data_path("profiles/nanoflow/a100-llama-3-8b-times.yaml")


def test_the_shipped_times_add_up_to_the_unsplit_layer() -> None:
    """The arithmetic of the reference: dense lines extrapolated to 1024 tokens, plus 0.997 and 0.0625 ms."""
    times = read_operation_times(SHIPPED)
    dense = 0.0
    for low, high in ((0.0839, 0.138), (0.0561, 0.0887), (0.356, 0.555), (0.177, 0.270)):
        dense += low + (high - low) * (1024 - 384) / 256
    total = sum(times.layer_seconds(384, 640).values())
    assert 1000 * total == pytest.approx(dense + 0.997 + 0.0625)
    assert round(1000 * total, 3) == 2.679


def test_times_are_linear_between_and_beyond_their_points() -> None:
    times = read_operation_times(SHIPPED)
    assert times.seconds("kqv", 512) == pytest.approx((0.0839e-3 + 0.138e-3) / 2)
    assert times.seconds("kqv", 896) == pytest.approx(0.138e-3 + 0.138e-3 - 0.0839e-3)
    assert times.seconds("decode_attention", 96) == pytest.approx(0.997e-3 / 4)
    assert times.seconds("kqv", 0) == 0.0


def test_extrapolation_never_falls_below_zero() -> None:
    points = dict.fromkeys(read_operation_times(SHIPPED).points, ((100.0, 1.0), (200.0, 3.0)))
    times = OperationTimes(model="m", gpu="g", context_tokens=10, points=points, source="a test")
    assert times.seconds("o", 20) == 0.0


def test_decode_attention_scales_with_its_context() -> None:
    times = read_operation_times(SHIPPED)
    longer = times.at_context(2048)
    assert longer.seconds("decode_attention", 384) == pytest.approx(2 * 0.997e-3)
    assert longer.seconds("kqv", 384) == times.seconds("kqv", 384)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    times = read_operation_times(SHIPPED)
    write_operation_times(tmp_path / "times.yaml", times)
    assert read_operation_times(tmp_path / "times.yaml") == times


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("gpu: A100", "gpus: A100", r"times.yaml:\d+:1: unknown key 'gpus'"),
        ("version: 1", "version: 9", r"times.yaml:\d+:\d+: version is 9"),
        ("  kqv:", "  qkv:", "unknown operation 'qkv'"),
        ("  o: [[384, 0.0561], [640, 0.0887]]\n", "", "o is missing"),
        ("[384, 0.0561]", "[384, -1]", "give positive figures"),
        ("[384, 0.0561], [640, 0.0887]", "[640, 0.0561], [384, 0.0887]", "do not ascend"),
        ("[[384, 0.0561], [640, 0.0887]]", "fast", r"times.yaml:\d+:\d+: o is not a list of pairs"),
        ("context_tokens: 1024", "context_tokens: 0", "positive context"),
        (
            "context_tokens: 1024",
            f"context_tokens: 1{'0' * 400}",
            r"times.yaml:\d+:\d+: the value 1000+... is out of all range",
        ),
        ("gpu: A100-80GB", "gpu: [A100-80GB]", r"times.yaml:\d+:\d+: gpu is \['A100-80GB'\]"),
    ],
)
def test_bad_times_are_refused_with_their_place(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = SHIPPED.read_text(encoding="utf-8")
    assert old in text
    (tmp_path / "times.yaml").write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(InputError, match=message):
        read_operation_times(tmp_path / "times.yaml")
