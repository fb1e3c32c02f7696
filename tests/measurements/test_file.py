"""The measurements file: what is appended is read, damage names its line, and version 1 is still understood."""

from __future__ import annotations

import json

import pytest

from melange import InputError, Measurement, Slo, read_measurements
from melange.measurements.file import Header, KvCache, append_measurements, record_line
from melange.measurements.measurement import Question
from melange.serving.config import ConfigKey


def point(**changes):
    values = {"model": "m", "gpu": "L4", "input_tokens": 100, "output_tokens": 50, "achieved_rps": 2.0}
    return Measurement(**{**values, **changes})


def test_append_and_read(tmp_path):
    file = tmp_path / "m.jsonl"
    append_measurements(file, Header(model="m", facts={"driver": "560"}), [point()])
    append_measurements(file, None, [point(achieved_rps=3.0)])
    read = read_measurements(file)
    assert [p.achieved_rps for p in read.points] == [2.0, 3.0]
    assert read.headers == (Header(model="m", facts={"driver": "560"}),)
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
        ('{"record": "header", "schema_version": true}', "schema version is True"),
        ('{"record": "header", "schema_version": 2, "host": "x"}', "m.jsonl:1: header: unknown key 'host'"),
        (
            '{"record": "header", "schema_version": 2, "kv_cache": {"tokens": "x", "block_tokens": 1}}',
            "kv_cache.tokens: ",
        ),
        ('{"record": "point", "modle": "x"}', "unknown key 'modle'; did you mean 'model'"),
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
    "change",
    [
        {"tp": 1.5}, {"tp": "two"}, {"samples": "many"}, {"valid": "yes"}, {"concurrency": "1"}, {"low_rps": "x"},
        {"model": ["x"]}, {"gpu": 5}, {"ttft_s": 5}, {"ttft_s": {"mean": "x"}}, {"sample_e2e_s": ["a"]}, {"extra": 5},
        {"achieved_rps": True}, {"achieved_rps": float("nan")}, {"asked": 5},
    ],
    ids=str,
)  # fmt: skip
def test_a_field_of_the_wrong_type_names_itself_and_its_line(tmp_path, change):
    row = {"record": "point", "model": "m", "gpu": "L4", "input_tokens": 1, "output_tokens": 1, "achieved_rps": 1.0}
    file = tmp_path / "m.jsonl"
    file.write_text(json.dumps(row) + "\n" + json.dumps(row | change) + "\n")
    with pytest.raises(InputError, match=rf"m\.jsonl:2: measurement: {next(iter(change))}( is |: |\.|\[)"):
        read_measurements(file)


HEADER = Header(
    model="m",
    gpu="L4",
    tp=2,
    precision="fp8",
    engine="vllm",
    engine_version="1",
    engine_command=("vllm", "serve", "--max-num-seqs", "8"),
    max_model_len_tokens=4096,
    kv_cache=KvCache(tokens=1024, block_tokens=16),
    model_shape={"layers": 2},
    slo=Slo(ttft_s=0.5, attainment=0.9),
    facts={"server": {"environment": {}}, "prompts": "text", "told": None},
)


def test_a_full_header_survives_the_file(tmp_path):
    append_measurements(tmp_path / "m.jsonl", HEADER, [])
    assert read_measurements(tmp_path / "m.jsonl").headers == (HEADER,)
    assert HEADER.is_of(ConfigKey("m", "L4", 2, "fp8", "vllm"))
    assert not HEADER.is_of(ConfigKey("m", "L4", 1, "fp8", "vllm"))
    assert not Header(model="m").is_of(ConfigKey("m", "L4", 2, "fp8", "vllm"))


def test_what_json_cannot_hold_is_refused():
    with pytest.raises(InputError, match="which JSON cannot hold"):
        record_line(Header(facts={"a": float("nan")}))


SLO_1 = {"tpot_s": 0.03, "tpot_definition": "decode", "ttft_s": None, "e2e_s": None, "statistic": "mean"}
HEADER_1 = {
    "record": "header", "schema_version": 1, "model": "m", "gpu": "L4", "tp": 2, "precision": "fp8", "engine": "vllm",
    "engine_version": "1", "server": {"command": ["vllm", "--max-num-seqs", "8"], "environment": {}},
    "max_model_len": 4096, "kv_cache": {"tokens": 1024, "block_tokens": 16}, "slo": SLO_1, "host": "x",
}  # fmt: skip
POINT_1 = {"record": "point", "model": "m", "gpu": "L4", "input_tokens": 1, "output_tokens": 1, "achieved_rps": 1.0}
EXTRA_1 = {
    "seed": 7, "confidence": 0.97, "nominal_rps": 3.0, "queue_growth_low_rps": -0.1, "queue_growth_high_rps": 0.2,
    "run_for": {"slo": SLO_1, "resolution": 1.4, "requests": 400, "point_s": 120},
}  # fmt: skip


def written(tmp_path, *records):
    file = tmp_path / "m.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    return file


def test_version_1_kept_in_extra_and_among_facts_what_has_fields_now(tmp_path):
    read = read_measurements(written(tmp_path, HEADER_1, POINT_1 | {"extra": EXTRA_1}))
    (header,), (p,) = read.headers, read.points
    assert (header.engine_command, header.max_model_len_tokens) == (("vllm", "--max-num-seqs", "8"), 4096)
    assert (header.kv_cache, header.slo) == (KvCache(tokens=1024, block_tokens=16), Slo(tpot_s=0.03))
    assert dict(header.facts) == {"server": {"environment": {}}, "host": "x"}
    assert (p.confidence, p.nominal_rps, p.queue_growth_low_rps, p.queue_growth_high_rps) == (0.97, 3.0, -0.1, 0.2)
    assert p.asked == Question(slo=Slo(tpot_s=0.03), resolution=1.4, requests=400, point_s=120)
    assert dict(p.extra) == {"seed": 7}


def test_each_header_says_the_version_of_what_follows_it(tmp_path):
    new = {"record": "header", "schema_version": 2}
    old_point = POINT_1 | {"extra": {"confidence": 0.97}}
    read = read_measurements(written(tmp_path, old_point, new, old_point, HEADER_1, old_point))
    assert [p.confidence for p in read.points] == [0.97, None, 0.97]
    assert read.points[1].extra == {"confidence": 0.97}


def test_written_again_it_is_of_the_present_version(tmp_path):
    read = read_measurements(written(tmp_path, HEADER_1, POINT_1 | {"extra": EXTRA_1}))
    append_measurements(tmp_path / "new.jsonl", read.headers[0], read.points)
    again = read_measurements(tmp_path / "new.jsonl")
    assert (again.headers, again.points) == (read.headers, read.points)
    assert json.loads((tmp_path / "new.jsonl").read_text().splitlines()[0])["schema_version"] == 2


def test_a_searched_file_of_version_1_is_read_whole(shared):
    read = read_measurements(shared / "cases/show-not-monotone.jsonl")
    assert all(p.confidence is not None and p.asked is not None for p in read.points)
    assert all((p.nominal_rps is not None) == (p.loop == "open") for p in read.points)
