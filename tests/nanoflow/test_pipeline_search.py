"""The pipeline search against a checker that shares no code with it, hand-made optima, and the reference example."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melange.catalog.hardware import load_catalog
from melange.errors import InputError
from melange.files.shipped import data_path
from melange.nanoflow.modelled_times import modelled_times
from melange.nanoflow.operation_times import OperationTimes, read_operation_times
from melange.nanoflow.pipeline import NanoOperation, Pipeline
from melange.nanoflow.pipeline_search import PipelineSearch, candidate_splits, search_pipeline
from melange.perfmodel.interference import Interference, read_interference

A100_TIMES = data_path("profiles/nanoflow/a100-llama-3-8b-times.yaml")
RESOURCE_OF = {"decode_attention": "memory", "o_all_reduce": "network", "down_all_reduce": "network"}
PARENTS: Mapping[bool, Mapping[str, tuple[str, ...]]] = {
    False: {
        "kqv": ("down",),
        "decode_attention": ("kqv",),
        "prefill_attention": ("kqv",),
        "o": ("decode_attention", "prefill_attention"),
        "up_gate": ("o",),
        "down": ("up_gate",),
    },
    True: {
        "kqv": ("down_all_reduce",),
        "decode_attention": ("kqv",),
        "prefill_attention": ("kqv",),
        "o": ("decode_attention", "prefill_attention"),
        "o_all_reduce": ("o",),
        "up_gate": ("o_all_reduce",),
        "down": ("up_gate",),
        "down_all_reduce": ("down",),
    },
}


def table(name: str) -> Interference:
    return read_interference(data_path(f"profiles/nanoflow/interference-{name}.yaml"))


def own_tokens(operation: NanoOperation, decode_tokens: int) -> int:
    if operation.kind == "decode_attention":
        return max(0, min(operation.end_token, decode_tokens) - operation.start_token)
    if operation.kind == "prefill_attention":
        return max(0, operation.end_token - max(operation.start_token, decode_tokens))
    return operation.end_token - operation.start_token


def check_schedule(pipeline: Pipeline, times: OperationTimes, interference: Interference) -> None:
    """Replay several layers of the pipeline and look at every instant: nothing here comes from the search."""
    period, decode = pipeline.stage2_s, pipeline.decode_tokens
    assert period is not None
    assert decode is not None
    reached = {
        "memory": {**dict(interference.memory), 1.0: 1.0},
        "network": {**dict(interference.network), 1.0: 1.0},
    }
    small = 1e-9 * period
    layers = 6
    when: dict[tuple[int, int], tuple[float, float]] = {}
    for index, operation in enumerate(pipeline.operations):
        assert operation.start_s is not None
        assert operation.duration_s is not None
        resource = RESOURCE_OF.get(operation.kind, "compute")
        speed = operation.share if resource == "compute" else reached[resource][operation.share]
        alone = times.seconds(operation.kind, own_tokens(operation, decode))
        assert operation.duration_s == pytest.approx(alone / speed, rel=1e-9, abs=1e-15)
        for layer in range(layers):
            start = (layer - operation.layer_offset) * period + operation.start_s
            when[index, layer] = (start, start + operation.duration_s)
    for (i, parent), (j, child) in itertools.product(enumerate(pipeline.operations), repeat=2):
        meets = parent.start_token < child.end_token and child.start_token < parent.end_token
        if not meets or parent.kind not in PARENTS[pipeline.tp > 1][child.kind]:
            continue
        for layer in range(1, layers):
            before = layer - 1 if child.kind == "kqv" else layer
            assert when[j, layer][0] >= when[i, before][1] - small, (parent.name, child.name)
    # Middle periods only: the first and last layers lack their neighbours.
    instants = sorted({edge for span in when.values() for edge in span})
    for left, right in itertools.pairwise(instants):
        if right - left <= 4 * small or not period <= (left + right) / 2 <= (layers - 2) * period:
            continue
        middle = (left + right) / 2
        running = [pipeline.operations[i] for (i, _), (start, end) in when.items() if start < middle < end]
        resources = [RESOURCE_OF.get(operation.kind, "compute") for operation in running]
        assert len(resources) == len(set(resources)), [operation.name for operation in running]
        assert sum(operation.share for operation in running) <= 1 + 1e-9
    for operations in pipeline.streams.values():
        starts = [operation.start_s or 0.0 for operation in operations]
        assert starts == sorted(starts)


def check_search(search: PipelineSearch, times: OperationTimes, interference: Interference) -> None:
    pipeline = search.pipeline
    assert pipeline.unsplit_s is not None
    assert pipeline.stage1_s is not None
    assert pipeline.stage2_s is not None
    assert pipeline.gap is not None
    assert pipeline.stage2_s <= pipeline.unsplit_s * (1 + 1e-12)
    assert 0 <= pipeline.gap < 1
    alone = sum(
        times.layer_seconds(pipeline.decode_tokens or 0, pipeline.batch_tokens - (pipeline.decode_tokens or 0)).values()
    )
    assert pipeline.unsplit_s == pytest.approx(alone)
    if len(pipeline.splits) > 1:
        assert pipeline.stage2_s >= pipeline.stage1_s * (1 - 1e-9) or len(search.trials) > 1
        check_schedule(pipeline, times, interference)


@pytest.mark.parametrize("name", ["paper", "authors"])
def test_the_reference_example(name: str) -> None:
    times, interference = read_operation_times(A100_TIMES), table(name)
    found = search_pipeline(times, interference, batch_tokens=1024, decode_tokens=384, time_limit_s=60)
    pipeline = found.pipeline
    assert pipeline.splits == (384, 1024)
    assert pipeline.unsplit_s == pytest.approx(2.679e-3, abs=5e-7)
    assert pipeline.stage1_s == pytest.approx(1.787e-3, abs=5e-7)
    assert pipeline.stage2_s is not None
    assert 2.3e-3 <= pipeline.stage2_s <= 2.5e-3
    assert found.proven
    attention = next(
        operation for operation in pipeline.operations if operation.kind == "decode_attention" and operation.duration_s
    )
    assert attention.share == 0.4
    check_search(found, times, interference)


@pytest.mark.parametrize("name", ["paper", "authors"])
def test_looking_at_every_split_is_never_worse(name: str) -> None:
    times, interference = read_operation_times(A100_TIMES), table(name)
    one = search_pipeline(times, interference, batch_tokens=1024, decode_tokens=384)
    every = search_pipeline(times, interference, batch_tokens=1024, decode_tokens=384, every_split=True)
    assert (every.pipeline.stage2_s or 1) <= (one.pipeline.stage2_s or 0) * (1 + 1e-9)
    check_search(every, times, interference)


def linear(per_token_s: Mapping[str, float], fixed_s: float = 0.0, tp: int = 1) -> OperationTimes:
    kinds = ("kqv", "decode_attention", "prefill_attention", "o", "up_gate", "down")
    kinds = (*kinds, "o_all_reduce", "down_all_reduce") if tp > 1 else kinds
    points = {kind: ((1.0, fixed_s + per_token_s[kind]), (2.0, fixed_s + 2 * per_token_s[kind])) for kind in kinds}
    return OperationTimes(model="m", gpu="g", tp=tp, context_tokens=100, points=points, source="a test")  # type: ignore[arg-type]


def test_a_hand_made_optimum() -> None:
    """Two nano-batches of one token: dense operations take 1 each, attention 4, and half the device is enough for it.

    One batch: 4 x 2 + 8 = 16. Stage I: 8, each half's attention beside the other's dense operations. Stage II: each
    attention takes half of the device for 4, so the dense operations lose 2 x 2: 8 + 4 = 12, reached by
    0-4 attention 1 beside UpGate 2 and Down 2 at half speed, 4-6 KQV 2 and O 1, and 6-12 the same with halves swapped.
    """
    times = linear({"kqv": 1, "o": 1, "up_gate": 1, "down": 1, "decode_attention": 4, "prefill_attention": 1})
    interference = Interference(gpu="g", source="a test", memory=((0.5, 1.0),))
    found = search_pipeline(times, interference, batch_tokens=2, decode_tokens=2, quantum_tokens=1)
    assert found.pipeline.unsplit_s == pytest.approx(16)
    assert found.pipeline.stage1_s == pytest.approx(8)
    assert found.pipeline.stage2_s == pytest.approx(12)
    assert found.proven
    check_search(found, times, interference)


def test_weights_read_twice_make_one_batch_the_answer() -> None:
    """Every operation takes 1 whatever its tokens: splitting doubles 4 dense operations to hide one attention."""
    times = linear(dict.fromkeys(("kqv", "o", "up_gate", "down", "decode_attention", "prefill_attention"), 0.0), 1.0)
    interference = Interference(gpu="g", source="a test", memory=((0.5, 1.0),))
    found = search_pipeline(times, interference, batch_tokens=2, decode_tokens=2, quantum_tokens=1)
    assert found.pipeline.splits == (2,)
    assert found.pipeline.stage2_s == found.pipeline.unsplit_s == 5
    assert found.predicted_speedup == 1.0
    assert found.proven


def test_a_small_card_gets_one_batch_and_a_large_one_does_not() -> None:
    catalog = load_catalog()
    model = catalog.model("llama-3-8b")
    splits = {}
    for gpu, batch, decode in (("L4", 135, 45), ("A100-80GB", 1024, 341)):
        times = modelled_times(model, catalog.gpu(gpu), context_tokens=1280, prompt_tokens=1024)
        found = search_pipeline(times, table("authors"), batch_tokens=batch, decode_tokens=decode, quantum_tokens=32)
        splits[gpu] = found.pipeline.splits
    assert splits["L4"] == (135,)
    assert len(splits["A100-80GB"]) == 2


def test_no_table_means_nothing_overlaps_and_one_batch() -> None:
    times = read_operation_times(A100_TIMES)
    found = search_pipeline(
        times, Interference(gpu="g", source="a test"), batch_tokens=1024, decode_tokens=384, time_limit_s=20
    )
    assert found.pipeline.splits == (1024,)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_schedule_passes_the_checker(data: st.DataObject) -> None:
    times, interference = data.draw(operation_times(tp=1)), data.draw(tables())
    decode = data.draw(st.integers(0, 8))
    found = search_pipeline(
        times, interference, batch_tokens=8, decode_tokens=decode, quantum_tokens=3, every_split=True, time_limit_s=2
    )
    check_search(found, times, interference)


@settings(max_examples=4, deadline=None)
@given(data=st.data())
def test_any_schedule_with_collectives_passes_the_checker(data: st.DataObject) -> None:
    times, interference = data.draw(operation_times(tp=2)), data.draw(tables())
    found = search_pipeline(times, interference, batch_tokens=8, decode_tokens=3, quantum_tokens=4, time_limit_s=2)
    check_search(found, times, interference)


@st.composite
def operation_times(draw: st.DrawFn, tp: int) -> OperationTimes:
    figures = st.floats(0.05, 5.0)
    kinds = ("kqv", "decode_attention", "prefill_attention", "o", "up_gate", "down", "o_all_reduce", "down_all_reduce")
    return linear({kind: draw(figures) for kind in kinds}, draw(st.floats(0, 1)), tp)


@st.composite
def tables(draw: st.DrawFn) -> Interference:
    def curve() -> tuple[tuple[float, float], ...]:
        shares = sorted(draw(st.sets(st.sampled_from([0.1, 0.2, 0.3, 0.4, 0.6, 0.8]), max_size=3)))
        performances = sorted(draw(st.lists(st.floats(0.1, 1.0), min_size=len(shares), max_size=len(shares))))
        return tuple(zip(shares, performances, strict=True))

    return Interference(gpu="g", source="a test", memory=curve(), network=curve())


def test_collectives_run_beside_dense_operations() -> None:
    """With a link that needs little of the device, two all-reduces hide behind the other half's dense operations."""
    kinds = ("kqv", "decode_attention", "prefill_attention", "o", "up_gate", "down", "o_all_reduce", "down_all_reduce")
    times = linear(dict.fromkeys(kinds, 1.0), tp=2)
    interference = Interference(gpu="g", source="a test", memory=((0.2, 1.0),), network=((0.2, 1.0),))
    found = search_pipeline(times, interference, batch_tokens=2, decode_tokens=2, quantum_tokens=1, time_limit_s=20)
    assert found.pipeline.unsplit_s == pytest.approx(14)
    assert found.pipeline.stage1_s == pytest.approx(8)
    assert found.pipeline.stage2_s is not None
    # The device's time: 8 of dense work and 0.2 of it for 6 units of the others.
    assert 9.2 - 1e-9 <= found.pipeline.stage2_s < 14
    check_search(found, times, interference)


def test_candidates_end_at_the_quantum_or_where_decoding_ends() -> None:
    assert list(candidate_splits(300, 90, 2, 128)) == [(90, 300), (128, 300), (256, 300)]
    assert (90, 128, 300) in set(candidate_splits(300, 90, 3, 128))
    assert list(candidate_splits(100, 0, 2, 128)) == []


def test_a_batch_that_cannot_be_split_stays_whole() -> None:
    times = read_operation_times(A100_TIMES)
    found = search_pipeline(times, table("paper"), batch_tokens=64, decode_tokens=64)
    assert found.pipeline.splits == (64,)
    assert found.proven


@pytest.mark.parametrize(
    "wrong",
    [
        {"decode_tokens": 2000},
        {"decode_tokens": -1},
        {"nano_batches": 1},
        {"nano_batches": 9},
        {"quantum_tokens": 0},
        {"time_limit_s": 0.0},
        {"batch_tokens": 0, "decode_tokens": 0},
    ],
)
def test_bad_figures_are_refused(wrong: dict[str, float]) -> None:
    given_ = {"batch_tokens": 1024, "decode_tokens": 384} | wrong
    with pytest.raises(InputError):
        search_pipeline(read_operation_times(A100_TIMES), table("paper"), **given_)  # type: ignore[arg-type]
