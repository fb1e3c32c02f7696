"""What the search writes, the executor runs: through the file, with the tokens of one unsplit batch."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch")

from melange.nanoflow.operation_times import OperationTimes
from melange.nanoflow.pipeline import Pipeline, read_pipeline
from melange.nanoflow.pipeline_search import search_pipeline
from melange.nanoflow.runtime.engine import NanoFlowEngine
from melange.nanoflow.runtime.launches import launch_order
from melange.nanoflow.runtime.scheduler import GenerationRequest
from melange.perfmodel.interference import Interference
from melange.perfmodel.operations import layer_kinds

TABLE = Interference(gpu="g", source="a test", memory=((0.2, 0.9),), network=((0.2, 0.9),))


def searched(tmp_path: Path, *, nano_batches: int, tp: int = 1) -> Pipeline:
    """The best pipeline for 32 tokens where decode attention takes as long as the dense operations."""
    points = {kind: ((32.0, 4.0 if kind == "decode_attention" else 1.0),) for kind in layer_kinds(tp)}
    times = OperationTimes(model="tiny", gpu="cpu", tp=tp, context_tokens=10, points=points, source="a test")
    found = search_pipeline(
        times, TABLE, batch_tokens=32, decode_tokens=24, quantum_tokens=8, nano_batches=nano_batches, time_limit_s=20
    )
    assert len(found.pipeline.splits) > 1
    (tmp_path / "pipeline.json").write_text(json.dumps(found.pipeline.to_dict()), encoding="utf-8")
    return read_pipeline(tmp_path / "pipeline.json")


@pytest.mark.parametrize("nano_batches", [2, 3])
def test_a_searched_pipeline_gives_the_tokens_of_one_batch(
    make_engine: Callable[..., NanoFlowEngine], tmp_path: Path, nano_batches: int
) -> None:
    wanted = [
        GenerationRequest(id=str(n), prompt=tuple((7 * n + i) % 120 + 3 for i in range(length)), max_tokens=9)
        for n, length in enumerate([1, 5, 40, 17, 2, 33, 16])
    ]
    whole = make_engine("llama", pipeline=Pipeline.unsplit(model="tiny", gpu="cpu", batch_tokens=32)).generate(wanted)
    pipeline = searched(tmp_path, nano_batches=nano_batches)
    assert make_engine("llama", pipeline=pipeline).generate(wanted) == whole


@pytest.mark.parametrize("tp", [1, 2])
def test_the_launch_order_of_a_searched_pipeline_keeps_its_streams(tmp_path: Path, tp: int) -> None:
    """With the batch that the search assumed, each stream launches a middle layer's operations in the listed order."""
    pipeline = searched(tmp_path, nano_batches=2, tp=tp)
    launches = launch_order(pipeline, layers=8, decodes=24, chunk_starts=[*range(25), 32])
    for stream, operations in pipeline.streams.items():
        wanted = [(op.kind, 4 + op.layer_offset, op.end_token) for op in operations if op.duration_s]
        launched = [
            (x.kind, x.layer, next(end for end in pipeline.splits if x.start < end))
            for x in launches
            if x.stream == stream
        ]
        assert [launch for launch in launched if launch in wanted] == wanted
