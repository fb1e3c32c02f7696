"""The order in which one iteration's operations are launched, from a cyclic pipeline and the shape of a batch.

A pipeline describes one period; an iteration runs it once a layer, after a prologue of the operations that work a layer
ahead. Every stream runs its operations in the pipeline's order and two streams meet only through events, so there is no
barrier between layers. Nothing here needs torch.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from melange.errors import InputError
from melange.nanoflow.pipeline import NanoOperation, Pipeline
from melange.perfmodel.operations import OperationKind, Stream, parent_kinds


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """One operation of one layer on the batch rows ``start`` to ``end`` (exclusive).

    ``waits``: indices of earlier launches, on other streams, that must have ended. ``signals``: whether a later launch
    waits for this one.
    """

    kind: OperationKind
    layer: int
    start: int
    end: int
    stream: Stream
    waits: tuple[int, ...] = ()
    signals: bool = False


def launch_order(pipeline: Pipeline, *, layers: int, decodes: int, chunk_starts: Sequence[int]) -> tuple[Launch, ...]:
    """The launches of one iteration, in an order in which none waits for a later one.

    ``chunk_starts``: (c + 1,) the batch's chunk boundaries, as in Batch. A batch shorter than the pipeline's fills its
    nano-batches from the front and leaves the others out; a longer one raises InputError. Where a batch's dependencies
    contradict the pipeline's order (a prompt cut in two by a nano-batch boundary, its parts in reverse order), the
    operation that can run goes first.
    """
    tokens = int(chunk_starts[-1])
    if tokens > pipeline.batch_tokens:
        raise InputError(f"a batch of {tokens} tokens for a pipeline of {pipeline.batch_tokens}")
    listed = [
        Launch(kind=op.kind, layer=period + op.layer_offset, start=rows[0], end=rows[1], stream=op.stream)
        for period in range(-1, layers)
        for op in pipeline.operations
        if 0 <= period + op.layer_offset < layers and (rows := _rows(op, tokens, decodes))
    ]
    parents = _parents(listed, pipeline.tp, chunk_starts)
    return _with_waits(listed, parents, _in_turn(listed, parents))


def _rows(op: NanoOperation, tokens: int, decodes: int) -> tuple[int, int] | None:
    start, end = op.start_token, min(op.end_token, tokens)
    if op.kind == "decode_attention":
        end = min(end, decodes)
    if op.kind == "prefill_attention":
        start = max(start, decodes)
    return (start, end) if start < end else None


def _parents(listed: list[Launch], tp: int, chunk_starts: Sequence[int]) -> list[list[int]]:
    where: dict[tuple[OperationKind, int], list[int]] = {}
    for index, launch in enumerate(listed):
        where.setdefault((launch.kind, launch.layer), []).append(index)
    found = []
    for launch in listed:
        start = launch.start
        if launch.kind == "prefill_attention":
            # A cut prompt attends to keys that an earlier nano-batch's KQV writes.
            start = chunk_starts[bisect_right(chunk_starts, start) - 1]
        layer = launch.layer - 1 if launch.kind == "kqv" else launch.layer
        candidates = [i for kind in parent_kinds(launch.kind, tp) for i in where.get((kind, layer), ())]
        found.append([i for i in candidates if listed[i].start < launch.end and start < listed[i].end])
    return found


def _in_turn(listed: list[Launch], parents: list[list[int]]) -> list[int]:
    """Indices in launch order: each stream's next operation as soon as its parents have been launched."""
    lanes: dict[Stream, list[int]] = {}
    for index in reversed(range(len(listed))):
        lanes.setdefault(listed[index].stream, []).append(index)
    done: set[int] = set()
    order: list[int] = []

    def ready(index: int) -> bool:
        return all(parent in done for parent in parents[index])

    while len(order) < len(listed):
        heads = [lane[-1] for lane in lanes.values() if lane and ready(lane[-1])]
        taken = min(heads) if heads else min(i for lane in lanes.values() for i in lane if ready(i))
        lanes[listed[taken].stream].remove(taken)
        done.add(taken)
        order.append(taken)
    return order


def _with_waits(listed: list[Launch], parents: list[list[int]], order: list[int]) -> tuple[Launch, ...]:
    place = {index: position for position, index in enumerate(order)}
    waits: list[tuple[int, ...]] = []
    for index in order:
        latest: dict[Stream, int] = {}
        for parent in parents[index]:
            stream = listed[parent].stream
            if stream != listed[index].stream:
                latest[stream] = max(latest.get(stream, -1), place[parent])
        waits.append(tuple(sorted(latest.values())))
    awaited = {position for group in waits for position in group}
    return tuple(
        Launch(
            kind=listed[index].kind,
            layer=listed[index].layer,
            start=listed[index].start,
            end=listed[index].end,
            stream=listed[index].stream,
            waits=waits[position],
            signals=position in awaited,
        )
        for position, index in enumerate(order)
    )
