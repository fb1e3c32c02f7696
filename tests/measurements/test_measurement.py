from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melange import InputError, LatencyStats, Measurement, read_measurements
from melange.measurements.file import Header, append_measurements

POSITIVE = st.floats(1e-3, 1e5)
STATS = st.builds(LatencyStats, mean=POSITIVE, p50=POSITIVE, p99=st.none() | POSITIVE)
POINTS = st.builds(
    Measurement,
    model=st.text(min_size=1),
    gpu=st.sampled_from(["L4", "H100"]),
    tp=st.integers(1, 8),
    input_tokens=POSITIVE,
    output_tokens=POSITIVE,
    offered_rps=st.none() | POSITIVE,
    achieved_rps=st.floats(0, 1e4),
    ttft_s=st.none() | STATS,
    sample_e2e_s=st.none() | st.lists(POSITIVE, max_size=3).map(tuple),
    extra=st.dictionaries(st.text(), st.integers(), max_size=2),
)


def point(**changes):
    values = {"model": "m", "gpu": "L4", "input_tokens": 100, "output_tokens": 50, "achieved_rps": 2.0}
    return Measurement(**{**values, **changes})


@given(POINTS)
def test_points_survive_the_file_format(p):
    assert Measurement.from_dict(json.loads(json.dumps(p.to_dict()))) == p


def test_append_and_read(tmp_path):
    file = tmp_path / "m.jsonl"
    append_measurements(file, Header(facts={"source": "measured", "driver": "560"}), [point()])
    append_measurements(file, None, [point(achieved_rps=3.0)])
    read = read_measurements(file)
    assert [p.achieved_rps for p in read.points] == [2.0, 3.0]
    assert read.headers[0].facts["driver"] == "560"
    assert not read.torn_tail


def test_a_line_cut_short_by_a_kill_is_left_out_and_said(tmp_path):
    file = tmp_path / "m.jsonl"
    append_measurements(file, Header(facts={}), [point()])
    with file.open("a") as f:
        f.write('{"record": "point", "mod')
    read = read_measurements(file)
    assert len(read.points) == 1
    assert read.torn_tail


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{oops", r"m.jsonl:1:2: not valid JSON"),
        ("[1]", r"m.jsonl:1: a record is a list"),
        ('{"record": "thing"}', "record is 'thing'"),
        ('{"record": "header", "schema_version": 99}', "schema version is 99"),
        ('{"record": "point", "modle": "x"}', "unknown field 'modle'"),
        ('{"record": "point", "model": "x"}', "missing"),
        (
            '{"record": "point", "model": "x", "gpu": "L4", "input_tokens": -1, "output_tokens": 1, "achieved_rps": 1}',
            "-1",
        ),
        (
            '{"record": "point", "model": "", "gpu": "L4", "input_tokens": "a", "output_tokens": 1, "achieved_rps": 1}',
            "m.jsonl:1",
        ),
    ],
)
def test_damage_names_its_line(tmp_path, line, message):
    file = tmp_path / "m.jsonl"
    file.write_text(line + "\n")
    with pytest.raises(InputError, match=message):
        read_measurements(file)


def test_nothing_in_it(tmp_path):
    file = tmp_path / "m.jsonl"
    file.write_text("\n")
    with pytest.raises(InputError, match="no measurements"):
        read_measurements(file)


@pytest.mark.parametrize(
    "bad", [{"achieved_rps": float("nan")}, {"precision": "fp7"}, {"source": "guessed"}, {"tp": 0}]
)
def test_impossible_points_are_refused(bad):
    with pytest.raises(InputError):
        point(**bad)


@pytest.mark.parametrize(
    "change",
    [
        {"tp": 1.5}, {"tp": "two"}, {"samples": "many"}, {"valid": "yes"}, {"concurrency": "1"}, {"low_rps": "x"},
        {"model": ["x"]}, {"gpu": 5}, {"ttft_s": 5}, {"ttft_s": {"mean": "x"}}, {"sample_e2e_s": ["a"]}, {"extra": 5},
        {"achieved_rps": True}, {"achieved_rps": float("nan")},
    ],
    ids=str,
)  # fmt: skip
def test_a_field_of_the_wrong_type_names_itself_and_its_line(tmp_path, change):
    row = {"record": "point", "model": "m", "gpu": "L4", "input_tokens": 1, "output_tokens": 1, "achieved_rps": 1.0}
    file = tmp_path / "m.jsonl"
    file.write_text(json.dumps(row) + "\n" + json.dumps(row | change) + "\n")
    with pytest.raises(InputError, match=rf"m\.jsonl:2: measurement: {next(iter(change))} is "):
        read_measurements(file)
