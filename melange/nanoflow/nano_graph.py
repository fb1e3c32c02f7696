"""NanoGraph: one layer's nano-operations for given nano-batches, and which of them wait for which."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from melange.errors import InputError
from melange.nanoflow.operation_times import OperationTimes
from melange.perfmodel.interference import Resource
from melange.perfmodel.operations import OperationKind, layer_kinds, parent_kinds

# Prefill attention is bound by compute, so the search never runs it beside a GEMM.
RESOURCE: Mapping[OperationKind, Resource] = MappingProxyType(
    {
        "kqv": "compute",
        "decode_attention": "memory",
        "prefill_attention": "compute",
        "o": "compute",
        "o_all_reduce": "network",
        "up_gate": "compute",
        "down": "compute",
        "down_all_reduce": "network",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One operation on the tokens [start_token, end_token) of the batch; ``best_s`` alone on the whole device."""

    kind: OperationKind
    start_token: int
    end_token: int
    resource: Resource
    best_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NanoGraph:
    """Tasks of one layer and their dependencies; attention without tokens of its sort is left out.

    ``edges`` are (i, j, closes): task j waits for task i, of the layer before where ``closes``. Tasks depend on each
    other only where their operations do and their token ranges meet.
    """

    splits: tuple[int, ...]
    tasks: tuple[Task, ...]
    edges: tuple[tuple[int, int, bool], ...]

    @classmethod
    def of(cls, times: OperationTimes, *, splits: Iterable[int], decode_tokens: int) -> NanoGraph:
        """The graph of a batch whose first ``decode_tokens`` decode, cut into nano-batches that end at ``splits``."""
        ends = tuple(splits)
        if not ends or any(b <= a for a, b in itertools.pairwise((0, *ends))):
            raise InputError(f"splits are {ends}", fix="give increasing positive ends of nano-batches")
        if not 0 <= decode_tokens <= ends[-1]:
            raise InputError(
                f"{decode_tokens} of {ends[-1]} tokens decode", fix="decode tokens are part of the batch's tokens"
            )
        tasks = tuple(
            Task(kind=kind, start_token=a, end_token=b, resource=RESOURCE[kind], best_s=times.seconds(kind, b - a))
            for start, end in zip((0, *ends[:-1]), ends, strict=True)
            for kind in layer_kinds(times.tp)
            for a, b in (_own_tokens(kind, start, end, decode_tokens),)
            if b > a
        )
        return cls(splits=ends, tasks=tasks, edges=tuple(_edges(tasks, times.tp)))

    def loops(self) -> list[tuple[int, ...]]:
        """Every way of a nano-batch through one layer and back to its KQV, as task indices."""
        following: dict[int, list[int]] = {}
        for i, j, closes in self.edges:
            if not closes:
                following.setdefault(i, []).append(j)
        paths: list[tuple[int, ...]] = [(i,) for i, task in enumerate(self.tasks) if task.kind == "kqv"]
        done: list[tuple[int, ...]] = []
        while paths:
            path = paths.pop()
            ahead = following.get(path[-1], [])
            done += [] if ahead else [path]
            paths += [(*path, j) for j in ahead]
        return done

    def free_pairs(self) -> list[tuple[int, int]]:
        """Pairs (i < j) that no way through a layer orders: only these can ever run at the same time."""
        ordered = {frozenset(pair) for loop in self.loops() for pair in itertools.combinations(loop, 2)}
        return [
            (i, j) for i, j in itertools.combinations(range(len(self.tasks)), 2) if frozenset((i, j)) not in ordered
        ]

    def least_period_s(self) -> float:
        """No schedule is shorter: the busiest resource's work, or the longest way through a layer."""
        work: dict[Resource, float] = {}
        for task in self.tasks:
            work[task.resource] = work.get(task.resource, 0.0) + task.best_s
        longest = max(sum(self.tasks[i].best_s for i in loop) for loop in self.loops())
        return max(longest, *work.values())

    def serial_s(self) -> float:
        """All tasks one after the other."""
        return sum(task.best_s for task in self.tasks)


def _own_tokens(kind: OperationKind, start: int, end: int, decode_tokens: int) -> tuple[int, int]:
    if kind == "decode_attention":
        return start, min(end, decode_tokens)
    if kind == "prefill_attention":
        return max(start, decode_tokens), end
    return start, end


def _edges(tasks: tuple[Task, ...], tp: int) -> Iterable[tuple[int, int, bool]]:
    for (i, parent), (j, child) in itertools.product(enumerate(tasks), enumerate(tasks)):
        meet = parent.start_token < child.end_token and child.start_token < parent.end_token
        if meet and parent.kind in parent_kinds(child.kind, tp):
            yield i, j, child.kind == "kqv"
