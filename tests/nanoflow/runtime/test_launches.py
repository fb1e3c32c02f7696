"""The launch order of any pipeline and batch: complete, and ordered by streams and events as the data flow demands."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch")

from melange.errors import InputError
from melange.nanoflow.pipeline import Pipeline
from melange.nanoflow.runtime.launches import Launch, launch_order
from melange.perfmodel.operations import layer_kinds

LAYERS = 3


@st.composite
def cases(draw: st.DrawFn) -> tuple[Pipeline, int, list[int]]:
    """A pipeline in any listed order, and a batch: decodes, then chunks, up to the pipeline's size."""
    splits = sorted(draw(st.lists(st.integers(1, 24), min_size=1, max_size=3, unique=True)))
    tp = draw(st.sampled_from([1, 2]))
    build = draw(st.sampled_from([Pipeline.interleaved, Pipeline.serial]))
    pipeline = build(model="m", gpu="g", splits=splits, tp=tp)
    pipeline = replace(pipeline, operations=tuple(draw(st.permutations(pipeline.operations))))
    tokens = draw(st.integers(1, splits[-1]))
    decodes = draw(st.integers(0, tokens))
    cuts = draw(st.sets(st.integers(decodes, tokens)))
    return pipeline, decodes, sorted({*range(decodes + 1), *cuts, tokens})


def finished_before(launches: tuple[Launch, ...]) -> list[set[int]]:
    """For each launch, those that have ended before it begins: earlier on its stream, or awaited, and theirs."""
    known: list[set[int]] = []
    last: dict[str, int] = {}
    for index, launch in enumerate(launches):
        direct = {*launch.waits, *([last[launch.stream]] if launch.stream in last else [])}
        assert all(wait < index and launches[wait].signals for wait in launch.waits)
        known.append(direct.union(*(known[i] for i in direct)) if direct else set())
        last[launch.stream] = index
    return known


@settings(deadline=None, max_examples=200)
@given(cases())
def test_every_token_goes_through_every_layer_in_order(case: tuple[Pipeline, int, list[int]]) -> None:
    pipeline, decodes, starts = case
    launches = launch_order(pipeline, layers=LAYERS, decodes=decodes, chunk_starts=starts)
    before = finished_before(launches)
    steps = [kind for kind in layer_kinds(pipeline.tp) if kind != "prefill_attention"]
    for token in range(starts[-1]):
        own = "decode_attention" if token < decodes else "prefill_attention"
        path = [own if kind == "decode_attention" else kind for kind in steps] * LAYERS
        layers = [layer for layer in range(LAYERS) for _ in steps]
        places = [
            [i for i, x in enumerate(launches) if (x.kind, x.layer) == step and x.start <= token < x.end]
            for step in zip(path, layers, strict=True)
        ]
        assert all(len(found) == 1 for found in places), "each operation once"
        assert all(first in before[second] for (first,), (second,) in pairwise(places))
    assert sum(x.end - x.start for x in launches if x.kind == "prefill_attention") == (starts[-1] - decodes) * LAYERS


@settings(deadline=None, max_examples=200)
@given(cases())
def test_prompts_attend_to_keys_that_are_written(case: tuple[Pipeline, int, list[int]]) -> None:
    """Also where a nano-batch boundary cuts a prompt: its second part needs the first part's keys."""
    pipeline, decodes, starts = case
    launches = launch_order(pipeline, layers=LAYERS, decodes=decodes, chunk_starts=starts)
    before = finished_before(launches)
    for index, launch in enumerate(launches):
        if launch.kind != "prefill_attention":
            continue
        first = max(start for start in starts if start <= launch.start)
        for i, other in enumerate(launches):
            if other.kind == "kqv" and other.layer == launch.layer and other.start < launch.end and first < other.end:
                assert i in before[index]


def test_the_order_of_the_paper_after_its_prologue() -> None:
    pipeline = Pipeline.interleaved(model="m", gpu="g", splits=(4, 10))
    launches = launch_order(pipeline, layers=2, decodes=4, chunk_starts=[0, 1, 2, 3, 4, 10])
    compute = [(x.kind, x.layer, x.start) for x in launches if x.stream == "compute"]
    assert compute[:2] == [("kqv", 0, 0), ("kqv", 0, 4)]
    assert compute[2:6] == [("o", 0, 0), ("up_gate", 0, 0), ("down", 0, 0), ("kqv", 1, 0)]
    assert compute[-3:] == [("o", 1, 4), ("up_gate", 1, 4), ("down", 1, 4)]
    memory = [(x.kind, x.layer) for x in launches if x.stream == "memory"]
    assert memory == [(kind, layer) for layer in range(2) for kind in ("decode_attention", "prefill_attention")]


def test_a_short_batch_leaves_the_later_nano_batches_out() -> None:
    pipeline = Pipeline.interleaved(model="m", gpu="g", splits=(4, 10))
    launches = launch_order(pipeline, layers=1, decodes=3, chunk_starts=[0, 1, 2, 3])
    assert [(x.kind, x.start, x.end) for x in launches] == [
        ("kqv", 0, 3),
        ("decode_attention", 0, 3),
        ("o", 0, 3),
        ("up_gate", 0, 3),
        ("down", 0, 3),
    ]
    with pytest.raises(InputError, match="a batch of 11 tokens"):
        launch_order(pipeline, layers=1, decodes=0, chunk_starts=[0, 11])
