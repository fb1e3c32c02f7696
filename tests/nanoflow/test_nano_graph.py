"""One layer's nano-operations and which wait for which."""

from __future__ import annotations

import pytest

from melange.errors import InputError
from melange.nanoflow.nano_graph import NanoGraph
from melange.nanoflow.operation_times import OperationTimes

KINDS = ("kqv", "decode_attention", "prefill_attention", "o", "up_gate", "down", "o_all_reduce", "down_all_reduce")


def times(tp: int = 1) -> OperationTimes:
    """Every operation takes as many seconds as it has tokens, attention three times as many."""
    kinds = KINDS if tp > 1 else KINDS[:6]
    points = {kind: ((1.0, s := 3.0 if kind.endswith("attention") else 1.0), (2.0, 2 * s)) for kind in kinds}
    return OperationTimes(model="m", gpu="g", tp=tp, context_tokens=100, points=points, source="a test")  # type: ignore[arg-type]


def test_tasks_have_the_tokens_of_their_sort() -> None:
    graph = NanoGraph.of(times(), splits=(4, 10), decode_tokens=6)
    spans = {(task.kind, task.start_token): task.end_token for task in graph.tasks}
    assert spans == {
        ("kqv", 0): 4, ("decode_attention", 0): 4, ("o", 0): 4, ("up_gate", 0): 4, ("down", 0): 4,
        ("kqv", 4): 10, ("decode_attention", 4): 6, ("prefill_attention", 6): 10,
        ("o", 4): 10, ("up_gate", 4): 10, ("down", 4): 10,
    }  # fmt: skip
    best = {(task.kind, task.start_token): task.best_s for task in graph.tasks}
    assert best["kqv", 4] == pytest.approx(6)
    assert best["prefill_attention", 6] == pytest.approx(12)
    assert {task.resource for task in graph.tasks if task.kind == "decode_attention"} == {"memory"}
    assert {task.resource for task in graph.tasks if task.kind == "prefill_attention"} == {"compute"}


def test_edges_follow_the_data_flow_where_tokens_meet() -> None:
    graph = NanoGraph.of(times(), splits=(4, 10), decode_tokens=6)
    named = {
        (graph.tasks[i].kind, graph.tasks[i].start_token, graph.tasks[j].kind, graph.tasks[j].start_token, closes)
        for i, j, closes in graph.edges
    }
    # An O waits for both attentions of its own tokens; a KQV for the Down of the layer before.
    assert ("decode_attention", 4, "o", 4, False) in named
    assert ("prefill_attention", 6, "o", 4, False) in named
    assert ("decode_attention", 0, "o", 4, False) not in named
    assert ("down", 0, "kqv", 0, True) in named
    assert len(named) == len(graph.edges) == 5 + 7
    assert {row[2] for row in named if row[4]} == {"kqv"}


def test_collectives_stand_between_dense_operations() -> None:
    graph = NanoGraph.of(times(tp=2), splits=(4,), decode_tokens=4)
    order = [graph.tasks[i].kind for i in graph.loops()[0]]
    assert order == ["kqv", "decode_attention", "o", "o_all_reduce", "up_gate", "down", "down_all_reduce"]
    assert {task.resource for task in graph.tasks if task.kind.endswith("all_reduce")} == {"network"}


def test_ways_through_a_layer_and_what_they_leave_free() -> None:
    graph = NanoGraph.of(times(), splits=(4, 10), decode_tokens=6)
    ways = sorted([graph.tasks[i].kind for i in loop] for loop in graph.loops())
    assert ways == sorted(
        [
            ["kqv", "decode_attention", "o", "up_gate", "down"],
            ["kqv", "decode_attention", "o", "up_gate", "down"],
            ["kqv", "prefill_attention", "o", "up_gate", "down"],
        ]
    )
    free = graph.free_pairs()
    # 5 tasks of one half beside 6 of the other, and the second half's two attentions beside each other.
    assert len(free) == 5 * 6 + 1
    assert all(i < j for i, j in free)
    assert NanoGraph.of(times(), splits=(4,), decode_tokens=4).free_pairs() == []


def test_periods_by_hand() -> None:
    whole = NanoGraph.of(times(), splits=(4,), decode_tokens=4)
    assert whole.serial_s() == whole.least_period_s() == pytest.approx(4 * 4 + 12)
    halves = NanoGraph.of(times(), splits=(2, 4), decode_tokens=4)
    assert halves.serial_s() == pytest.approx(28)
    # The dense operations keep the compute units busy for 16; one half's way takes 8 + 6.
    assert halves.least_period_s() == pytest.approx(16)


@pytest.mark.parametrize("splits", [(), (0, 4), (4, 4), (4, 2), (-1, 4)])
def test_splits_ascend_from_above_zero(splits: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="splits are"):
        NanoGraph.of(times(), splits=splits, decode_tokens=0)


@pytest.mark.parametrize("decode_tokens", [-1, 5])
def test_decode_tokens_are_of_the_batch(decode_tokens: int) -> None:
    with pytest.raises(InputError, match="4 tokens decode"):
        NanoGraph.of(times(), splits=(4,), decode_tokens=decode_tokens)
