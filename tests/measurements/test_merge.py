"""Merging measurements files: every point once, in order, headers kept, mixed engine versions said."""

from __future__ import annotations

from melange.measurements.file import Header, append_measurements, read_measurements
from melange.measurements.measurement import Measurement
from melange.measurements.merge import merge_measurements


def point(rate, **changes):
    values = {"model": "m", "gpu": "L4", "input_tokens": 100, "output_tokens": 50, "achieved_rps": rate}
    return Measurement(**{**values, **changes})


def test_every_point_and_header_comes_once_in_order(tmp_path):
    header = Header(engine_version="1", facts={"host": "a"})
    append_measurements(tmp_path / "a.jsonl", header, [point(1.0), point(2.0)])
    append_measurements(tmp_path / "b.jsonl", header, [point(2.0), point(3.0)])
    merged = merge_measurements(tmp_path / "all.jsonl", [tmp_path / "a.jsonl", tmp_path / "b.jsonl"])
    assert (merged.points, merged.repeated, merged.warnings) == (3, 1, ())
    whole = read_measurements(tmp_path / "all.jsonl")
    assert whole.headers == (header,)
    assert [p.achieved_rps for p in whole.points] == [1.0, 2.0, 3.0]


def test_one_configuration_of_two_engine_versions_is_a_warning(tmp_path):
    append_measurements(tmp_path / "a.jsonl", None, [point(1.0, engine_version="1"), point(1.0, gpu="H100")])
    append_measurements(tmp_path / "b.jsonl", None, [point(2.0, engine_version="2")])
    merged = merge_measurements(tmp_path / "all.jsonl", [tmp_path / "a.jsonl", tmp_path / "b.jsonl"])
    assert merged.warnings == ("m on 1xL4 (fp16, vllm) was measured with engine versions 1, 2",)
