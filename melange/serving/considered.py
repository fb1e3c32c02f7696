"""Considered: what the cheapest fleet is the cheapest of, and what was left out of that, with the reason."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

Reason = Literal["no offer", "not allowed", "no machine", "does not fit"]
NAMED = 6  # GPUs of one reason that a line names


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A GPU type, or one way to serve on it, that was not tried: the ``reason``, and where there is more to say the
    ``detail``.

    ``tp`` and ``precision`` are None where all of them are left out.
    """

    gpu: str
    reason: Reason
    detail: str = ""
    tp: int | None = None
    precision: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Considered:
    """Among what a fleet is the cheapest: GPU types of a price list, precisions, degrees, KV dtypes, engines' limits.

    ``prices`` names the list. ``checkpoint`` is the precision that the model was published in, None where unknown.
    ``batched_tokens`` and ``sequences`` are the token budgets and numbers of requests at once that were tried, empty
    where each engine kept its own. ``left_out`` is what
    an estimate might have tried beside these; of measured profiles there is nothing to say.
    """

    gpus: tuple[str, ...]
    prices: str
    precisions: tuple[str, ...]
    tp: tuple[int, ...]
    checkpoint: str | None = None
    kv_dtypes: tuple[str, ...] = ("auto",)
    batched_tokens: tuple[int, ...] = ()
    sequences: tuple[int, ...] = ()
    left_out: tuple[LeftOut, ...] = ()

    def describe(self) -> str:
        """``9 GPU types of price set 2026-11, checkpoint precision bf16, TP 1-8``."""
        types = f"{len(self.gpus)} GPU types" if len(self.gpus) > 1 else "".join(self.gpus)
        own = "checkpoint precision " if self.precisions == (self.checkpoint,) else ""
        parts = [f"{types} of {self.prices}", own + "/".join(self.precisions), f"TP {_range(self.tp)}"]
        parts += [f"KV cache {'/'.join(self.kv_dtypes)}"] if self.kv_dtypes != ("auto",) else []
        parts += [f"token budgets {_range(self.batched_tokens)}"] if self.batched_tokens else []
        parts += [f"at most {_range(self.sequences)} requests at once"] if self.sequences else []
        return ", ".join(parts)

    def describe_left_out(self) -> str:
        """``T4 (no offer in price set 2026-11); TP 2-8 on L4 (no machine of so many)``; empty for nothing."""
        parts = []
        for reason in dict.fromkeys(entry.reason for entry in self.left_out):
            entries = [entry for entry in self.left_out if entry.reason == reason]
            parts.append(f"{_named(entries)} ({_why(reason, self.prices)})")
        return "; ".join(parts)


def _why(reason: Reason, prices: str) -> str:
    if reason == "no offer":
        return f"no offer in {prices}"
    return {"not allowed": "left out by fleet, --only or --exclude", "no machine": "no machine of so many"}.get(
        reason, reason
    )


def _named(entries: Sequence[LeftOut]) -> str:
    """GPUs that lack the same degrees and precision together."""
    degrees: dict[tuple[str, str], list[int]] = {}
    for entry in entries:
        lacking = degrees.setdefault((entry.gpu, entry.precision or ""), [])
        lacking += [entry.tp] if entry.tp is not None else []
    rows = sorted(degrees.items(), key=lambda item: (item[1], item[0]))
    texts = []
    for lacking, group in groupby(rows, key=lambda item: item[1]):
        gpus = [f"{gpu}/{precision}" if precision else gpu for (gpu, precision), _ in group]
        more = f" and {len(gpus) - NAMED} more" if len(gpus) > NAMED else ""
        texts.append((f"TP {_range(lacking)} on " if lacking else "") + ", ".join(gpus[:NAMED]) + more)
    return ", ".join(texts)


def _range(values: Iterable[int]) -> str:
    found = sorted(set(values))
    return f"{found[0]}-{found[-1]}" if len(found) > 1 else "".join(map(str, found))
