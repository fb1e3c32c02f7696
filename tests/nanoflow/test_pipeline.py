"""Pipeline: validation, its file form, and the orders that need no search."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melange.errors import InputError
from melange.nanoflow.pipeline import NanoOperation, Pipeline, read_pipeline

SPLITS = st.lists(st.integers(1, 2048), min_size=1, max_size=4, unique=True).map(sorted)


def make(splits: list[int], tp: int = 1) -> Pipeline:
    return Pipeline.interleaved(model="m", gpu="g", splits=splits, tp=tp)


@given(SPLITS, st.sampled_from([1, 2]))
def test_survives_its_file_form(splits: list[int], tp: int) -> None:
    for pipeline in (
        make(splits, tp),
        Pipeline.serial(model="m", gpu="g", splits=splits, tp=tp),
        Pipeline.unsplit(model="m", gpu="g", batch_tokens=splits[-1], tp=tp, unsplit_s=1e-3),
    ):
        assert Pipeline.from_dict(json.loads(json.dumps(pipeline.to_dict()))) == pipeline
        assert pickle.loads(pickle.dumps(pipeline)) == pipeline


def test_interleaved_is_the_order_of_the_paper() -> None:
    streams = make([384, 1024]).streams
    assert [op.name for op in streams["compute"]] == [
        "o[0:384]",
        "up_gate[0:384]",
        "down[0:384]",
        "kqv[0:384]",
        "o[384:1024]",
        "up_gate[384:1024]",
        "down[384:1024]",
        "kqv[384:1024]",
    ]
    assert [op.kind for op in streams["memory"]] == ["decode_attention", "prefill_attention"] * 2
    assert {op.layer_offset for op in make([384, 1024]).operations if op.kind == "kqv"} == {1}


@pytest.mark.parametrize("splits", [(), (0, 8), (4, 4, 8), (8, 4), (4,), (4.0, 8)])
def test_refuses_splits_that_do_not_fill_the_batch(splits: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="splits"):
        replace(make([8]), splits=splits)


def test_refuses_tokens_left_out_or_done_twice() -> None:
    pipeline = make([4, 8])
    without = tuple(op for op in pipeline.operations if op.name != "decode_attention[4:8]")
    with pytest.raises(InputError, match="decode_attention covers 4 of 8"):
        replace(pipeline, operations=without)
    twice = (*pipeline.operations, NanoOperation(kind="o", start_token=0, end_token=4, stream="compute"))
    with pytest.raises(InputError, match="does not follow token"):
        replace(pipeline, operations=twice)


def test_refuses_an_operation_a_layer_ahead_of_its_parent() -> None:
    pipeline = make([8])
    ahead = tuple(replace(op, layer_offset=1 if op.kind == "o" else 0) for op in pipeline.operations)
    with pytest.raises(InputError, match="a layer ahead"):
        replace(pipeline, operations=ahead)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"share": 0.0}, "share"),
        ({"kind": "gemm"}, "kind"),
        ({"stream": "disk"}, "stream"),
        ({"end_token": 0}, "range"),
    ],
)
def test_refuses_bad_operations(change: dict[str, object], message: str) -> None:
    values = {"kind": "o", "start_token": 0, "end_token": 8, "stream": "compute"} | change
    with pytest.raises(InputError, match=message):
        NanoOperation(**values)  # type: ignore[arg-type]


def _head(rest: str) -> str:
    return f'{{"model": "m", "gpu": "g", "batch_tokens": 8, {rest}}}'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "pipeline.json:1:2: not valid JSON"),
        ("[]", "JSON object"),
        ('{"speed": 1}', "unknown key 'speed'"),
        ("[" * 100_000, "nested too deep"),
        ('{"model": "m"}', "gpu is missing"),
        (_head('"operations": {}, "splits": []'), "must be lists"),
        (_head('"operations": [], "splits": [null]'), "splits are"),
        (_head('"operations": [3], "splits": [8]'), "an operation is 3"),
        (_head('"operations": [{"kind": "o"}], "splits": [8]'), "start_token is missing"),
        (_head('"operations": [], "splits": [8], "decode_tokens": 9'), "9 of 8 tokens decode"),
        (_head('"operations": [], "splits": [8], "decode_tokens": 1.5'), "1.5 of 8 tokens decode"),
        (_head('"operations": [], "splits": [8], "schema_version": 2'), "schema_version is 2"),
        (_head('"operations": [], "splits": [8], "tp": "2"'), "tp is '2'"),
    ],
)
def test_bad_files_are_one_line_with_the_file_name(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "pipeline.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_pipeline(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="No such file"):
        read_pipeline(tmp_path / "absent.json")
