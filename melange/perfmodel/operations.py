"""The operations of one decoder layer, in the order of its data flow, and the resource each is bound by."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, get_args

OperationKind = Literal[
    "kqv",
    "decode_attention",
    "prefill_attention",
    "o",
    "o_all_reduce",
    "up_gate",
    "down",
    "down_all_reduce",
]
Stream = Literal["compute", "memory", "network"]

DEFAULT_STREAM: Mapping[OperationKind, Stream] = MappingProxyType(
    {
        "kqv": "compute",
        "decode_attention": "memory",
        "prefill_attention": "memory",
        "o": "compute",
        "o_all_reduce": "network",
        "up_gate": "compute",
        "down": "compute",
        "down_all_reduce": "network",
    }
)
DENSE_KINDS: tuple[OperationKind, ...] = ("kqv", "o", "up_gate", "down")


def layer_kinds(tp: int) -> tuple[OperationKind, ...]:
    """The operations of one layer in the order of its data flow; the collectives only where ``tp`` exceeds 1."""
    return tuple(kind for kind in get_args(OperationKind) if tp > 1 or not kind.endswith("all_reduce"))


def parent_kinds(kind: OperationKind, tp: int) -> tuple[OperationKind, ...]:
    """The operations whose result ``kind`` reads; the first of a layer reads the last one of the layer before."""
    kinds = layer_kinds(tp)
    if kind == "kqv":
        return (kinds[-1],)
    if kind.endswith("attention"):
        return ("kqv",)
    if kind == "o":
        return ("decode_attention", "prefill_attention")
    return (kinds[kinds.index(kind) - 1],)
