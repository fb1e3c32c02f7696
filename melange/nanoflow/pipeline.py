"""Pipeline: how one decoder layer's operations are split into nano-batches, ordered, and given shares of a device.

The value that the NanoFlow search writes and the executor runs (arXiv 2408.12757, sections 4 and 5). A pipeline is
*cyclic*: its operations describe one period, which repeats once a layer. An operation with ``layer_offset`` 1 works,
in the period of layer l, on layer l + 1 already (the next layer's KQV of the first nano-batch, for example), so a run
starts with a prologue of exactly those operations on layer 0. Nothing here needs torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

from melange.errors import InputError
from melange.files.text import read_json_object
from melange.perfmodel.operations import DEFAULT_STREAM, DENSE_KINDS, OperationKind, Stream, layer_kinds, parent_kinds

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class NanoOperation:
    """One operation on the batch's tokens ``start_token`` to ``end_token`` (exclusive), in one layer.

    Decode tokens come first in a batch, prefill chunks after them: ``decode_attention`` works on the decode tokens of
    its range and ``prefill_attention`` on the others. ``share`` is R, the part of the device that it may take, in
    (0, 1]. ``start_s`` and ``duration_s`` are predicted, within the period of one layer; None where nobody predicted.
    """

    kind: OperationKind
    start_token: int
    end_token: int
    stream: Stream
    share: float = 1.0
    layer_offset: int = 0
    start_s: float | None = None
    duration_s: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(OperationKind):
            raise InputError(f"operation kind is {self.kind!r}", fix=f"use one of {', '.join(get_args(OperationKind))}")
        if self.stream not in get_args(Stream):
            raise InputError(f"{self.name}: stream is {self.stream!r}", fix=f"use one of {', '.join(get_args(Stream))}")
        if not 0 <= self.start_token < self.end_token:
            raise InputError(f"{self.name}: the token range is empty or negative", fix="give 0 <= start < end")
        if not 0.0 < self.share <= 1.0:
            raise InputError(f"{self.name}: share is {self.share}", fix="give a share above 0 and up to 1")
        if self.layer_offset not in (0, 1):
            raise InputError(f"{self.name}: layer_offset is {self.layer_offset}", fix="give 0 or 1")
        for name in ("start_s", "duration_s"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise InputError(f"{self.name}: {name} is {value}", fix="give seconds, or leave it out")

    @property
    def name(self) -> str:
        return f"{self.kind}[{self.start_token}:{self.end_token}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """A searched (or trivial) pipeline for one model on one GPU type, at ``batch_tokens`` tokens an iteration.

    ``splits`` are the exclusive upper ends of the dense operations' nano-batches, increasing, the last one
    ``batch_tokens``: ``(384, 1024)`` is two nano-batches of 384 and 640 tokens. ``operations`` lists one period; the
    order in which a stream's operations are listed is the order in which that stream runs them. Each kind covers
    every token once. ``decode_tokens`` and ``context_tokens`` are the batch that the search assumed: how many of the
    tokens decode, and their mean context.

    Predicted times are of one layer: ``unsplit_s`` one batch without overlap, ``stage1_s`` the best makespan without
    interference, ``stage2_s`` with it. ``gap`` is the proven relative gap of stage II (0 is optimal); all are None
    where not predicted. ``provenance`` says in words where operation times, interference table and limits came from.
    """

    model: str
    gpu: str
    batch_tokens: int
    splits: tuple[int, ...]
    operations: tuple[NanoOperation, ...]
    tp: int = 1
    decode_tokens: int | None = None
    context_tokens: float | None = None
    unsplit_s: float | None = None
    stage1_s: float | None = None
    stage2_s: float | None = None
    gap: float | None = None
    provenance: Mapping[str, str] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        if self.schema_version != SCHEMA_VERSION:
            raise InputError(f"pipeline schema_version is {self.schema_version}", fix=f"this reads {SCHEMA_VERSION}")
        for name in ("model", "gpu"):
            if not isinstance(getattr(self, name), str):
                raise InputError(f"pipeline: {name} is {getattr(self, name)!r}", fix="give a name")
        for name in ("tp", "batch_tokens"):
            if type(getattr(self, name)) is not int:
                raise InputError(f"pipeline: {name} is {getattr(self, name)!r}", fix="give a positive integer")
        if self.tp < 1 or self.batch_tokens < 1:
            raise InputError(f"pipeline: tp {self.tp}, batch_tokens {self.batch_tokens}", fix="give positive integers")
        object.__setattr__(self, "splits", tuple(self.splits))
        object.__setattr__(self, "operations", tuple(self.operations))
        object.__setattr__(self, "provenance", MappingProxyType(dict(self.provenance)))
        _check_splits(self.splits, self.batch_tokens)
        _check_numbers(self)
        for kind in layer_kinds(self.tp):
            _check_cover(kind, [op for op in self.operations if op.kind == kind], self.batch_tokens)
        stray = {op.kind for op in self.operations} - set(layer_kinds(self.tp))
        if stray:
            raise InputError(f"pipeline: {', '.join(sorted(stray))} with tp {self.tp}", fix="collectives need tp > 1")
        for kind in DENSE_KINDS:
            ends = tuple(sorted(op.end_token for op in self.operations if op.kind == kind))
            if ends != self.splits:
                raise InputError(f"pipeline: {kind} ends at {ends}, splits say {self.splits}", fix="let them agree")
        _check_offsets(self)

    def __reduce__(self) -> tuple[Callable[[dict[str, Any]], Pipeline], tuple[dict[str, Any]]]:
        # A read-only mapping cannot be pickled; other processes get the plain values.
        return type(self).from_dict, (self.to_dict(),)

    @property
    def nano_batches(self) -> int:
        return len(self.splits)

    @property
    def streams(self) -> Mapping[Stream, tuple[NanoOperation, ...]]:
        """Each used stream's operations in the order it runs them."""
        return {
            name: found for name in get_args(Stream) if (found := tuple(o for o in self.operations if o.stream == name))
        }

    @classmethod
    def unsplit(
        cls, *, model: str, gpu: str, batch_tokens: int, tp: int = 1, unsplit_s: float | None = None
    ) -> Pipeline:
        """One batch: every operation once over all tokens, one after the other on the compute stream."""
        return cls.serial(model=model, gpu=gpu, splits=(batch_tokens,), tp=tp, unsplit_s=unsplit_s)

    @classmethod
    def serial(
        cls, *, model: str, gpu: str, splits: Iterable[int], tp: int = 1, unsplit_s: float | None = None
    ) -> Pipeline:
        """Split at ``splits`` but without overlap: every operation on the compute stream, nano-batch by nano-batch."""
        ends = tuple(splits)
        starts = (0, *ends[:-1])
        return cls(
            model=model,
            gpu=gpu,
            batch_tokens=ends[-1] if ends else 0,
            splits=ends,
            tp=tp,
            unsplit_s=unsplit_s,
            operations=tuple(
                NanoOperation(kind=kind, start_token=start, end_token=end, stream="compute")
                for kind in layer_kinds(tp)
                for start, end in zip(starts, ends, strict=True)
            ),
        )

    @classmethod
    def interleaved(cls, *, model: str, gpu: str, splits: Iterable[int], tp: int = 1) -> Pipeline:
        """The paper's run-time order for any splits, unsearched: attention beside other nano-batches' dense operations.

        The compute stream runs O, UpGate, Down and the next layer's KQV of the first nano-batch, then of the next.
        """
        ends = tuple(splits)
        ranges = list(zip((0, *ends[:-1]), ends, strict=True))
        dense = [kind for kind in layer_kinds(tp) if not kind.endswith("attention") and kind != "kqv"]
        order: list[tuple[OperationKind, int, int, int]] = []
        for start, end in ranges:
            order += [("decode_attention", start, end, 0), ("prefill_attention", start, end, 0)]
            order += [(kind, start, end, 0) for kind in dense] + [("kqv", start, end, 1)]
        return cls(
            model=model,
            gpu=gpu,
            batch_tokens=ends[-1] if ends else 0,
            splits=ends,
            tp=tp,
            operations=tuple(
                NanoOperation(
                    kind=kind, start_token=start, end_token=end, stream=DEFAULT_STREAM[kind], layer_offset=offset
                )
                for kind, start, end, offset in order
            ),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; ``from_dict`` reads them back to an equal pipeline."""
        plain = {item.name: getattr(self, item.name) for item in fields(self)}
        plain["splits"] = list(self.splits)
        plain["provenance"] = dict(self.provenance)
        plain["operations"] = [{item.name: getattr(op, item.name) for item in fields(op)} for op in self.operations]
        return plain

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Pipeline:
        """A pipeline from plain values. Missing, unknown or mistyped keys raise InputError."""
        values = _known(cls, plain, "pipeline")
        operations = values.get("operations")
        if not isinstance(operations, list) or not isinstance(values.get("splits"), list):
            raise InputError("pipeline: splits and operations must be lists", fix="write the file with to_dict")
        values["operations"] = tuple(_operation(item) for item in operations)
        values["splits"] = tuple(values["splits"])
        try:
            return cls(**values)
        except (TypeError, ValueError, AttributeError) as error:
            raise InputError(f"pipeline: {error}", fix="check the types of its values") from None


def read_pipeline(path: str | Path) -> Pipeline:
    """The pipeline of a JSON file; an unreadable or invalid one raises InputError with the file's name."""
    plain = read_json_object(path, fix="write a pipeline with 'melange nanoflow search -o'")
    try:
        return Pipeline.from_dict(plain)
    except InputError as error:
        raise error.located(path) from None


def _operation(plain: object) -> NanoOperation:
    if not isinstance(plain, dict):
        raise InputError(f"pipeline: an operation is {plain!r}", fix="give an object")
    try:
        return NanoOperation(**_known(NanoOperation, plain, "operation"))
    except TypeError as error:
        raise InputError(f"pipeline operation: {error}", fix="check the types of its values") from None


def _known(cls: type[Pipeline | NanoOperation], plain: Mapping[str, Any], what: str) -> dict[str, Any]:
    names = {item.name for item in fields(cls)}
    unknown = [key for key in plain if key not in names]
    if unknown:
        raise InputError(f"{what}: unknown key {unknown[0]!r}", fix=f"known are {', '.join(sorted(names))}")
    required = [item.name for item in fields(cls) if item.default is MISSING and item.default_factory is MISSING]
    missing = [name for name in required if name not in plain]
    if missing:
        raise InputError(f"{what}: {missing[0]} is missing", fix=f"give {', '.join(required)}")
    return dict(plain)


def _check_splits(splits: tuple[int, ...], batch_tokens: int) -> None:
    whole = all(isinstance(end, int) and not isinstance(end, bool) for end in splits)
    if not whole or not splits or splits[-1] != batch_tokens or splits[0] < 1 or list(splits) != sorted(set(splits)):
        raise InputError(
            f"pipeline: splits are {splits} of {batch_tokens} tokens",
            fix="give increasing positive ends, the last one batch_tokens",
        )


def _check_numbers(pipeline: Pipeline) -> None:
    for name in ("decode_tokens", "context_tokens", "unsplit_s", "stage1_s", "stage2_s", "gap"):
        value = getattr(pipeline, name)
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise InputError(f"pipeline: {name} is {value}", fix="give a number from 0, or leave it out")
    decode = pipeline.decode_tokens
    if decode is not None and (type(decode) is not int or decode > pipeline.batch_tokens):
        raise InputError(
            f"pipeline: {decode} of {pipeline.batch_tokens} tokens decode", fix="decode tokens are part of the batch"
        )


def _check_cover(kind: OperationKind, operations: list[NanoOperation], batch_tokens: int) -> None:
    at = 0
    for op in sorted(operations, key=lambda op: op.start_token):
        if op.start_token != at:
            raise InputError(f"pipeline: {op.name} does not follow token {at}", fix="cover every token once")
        at = op.end_token
    if at != batch_tokens:
        raise InputError(f"pipeline: {kind} covers {at} of {batch_tokens} tokens", fix="cover every token once")


def _check_offsets(pipeline: Pipeline) -> None:
    """A layer must not need a result that the period computes for a later layer only."""
    for op in pipeline.operations:
        if op.kind == "kqv":
            continue
        for parent in pipeline.operations:
            meets = parent.start_token < op.end_token and op.start_token < parent.end_token
            if parent.kind in parent_kinds(op.kind, pipeline.tp) and meets and parent.layer_offset < op.layer_offset:
                raise InputError(f"pipeline: {op.name} runs a layer ahead of {parent.name}", fix="check layer_offset")
