"""The nearest SLO that can be kept where the one asked for cannot: each limit's own value, the others as they are.

Which limits bind is found by loosening them: one alone where that is enough, else all of them together and each then
tightened again as far as the others allow, so that no limit is looser than it must be.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from melange.slo import Slo

MOST = 100.0
"""The largest factor that a limit is loosened by."""
RESOLUTION = 1.01

Keeps = Callable[[Slo], bool]
"""Whether an SLO can be kept. Whatever keeps a limit keeps a looser one."""


def nearest_slos(slo: Slo, keeps: Keeps) -> tuple[Slo, ...]:
    """SLOs that can be kept, each with its own limit loosened as little as is enough, to 1%; ordered by how little.

    Where no limit alone is enough, the one SLO in which several are looser; empty where none is, up to a hundredfold.
    """
    names = list(slo.thresholds_s)
    alone = {name: factor for name in names if (factor := _least(slo, name, keeps)) is not None}
    if alone:
        return tuple(_loosened(slo, {name: alone[name]}) for name in sorted(alone, key=lambda name: alone[name]))
    if len(names) < 2 or not keeps(_loosened(slo, dict.fromkeys(names, MOST))):
        return ()
    together = _bisected(lambda factor: keeps(_loosened(slo, dict.fromkeys(names, factor))))
    factors = dict.fromkeys(names, together)
    for name in names:
        factors[name] = _tightened(slo, name, factors, keeps)
    return (_loosened(slo, factors),)


def nearest_slo_reasons(slo: Slo, keeps: Keeps) -> list[str]:
    """The nearest SLOs in words; that there is none, where there is none. None at all for an SLO without limits."""
    if not slo.thresholds_s:
        return []
    found = nearest_slos(slo, keeps)
    if not found:
        return ["even a hundredfold looser SLO is not met there: leave these sizes out or allow more configs"]
    if len(slo.thresholds_s) == 1:
        return [f"the nearest SLO that the same GPUs can meet is {found[0].describe()}"]
    changes = [_changes(slo, other) for other in found]
    if len(found) == 1 and " and " in changes[0]:
        return [f"the nearest SLO that the same GPUs can meet has {changes[0]}: no limit alone is enough"]
    return [f"the nearest SLO that the same GPUs can meet has {' or '.join(changes)}, the rest as it is"]


def _tightened(slo: Slo, name: str, factors: dict[str, float], keeps: Keeps) -> float:
    """The least factor of one limit that is enough beside the others', 1 where it need not be looser."""

    def enough(factor: float) -> bool:
        return keeps(_loosened(slo, factors | {name: factor}))

    return 1.0 if enough(1.0) else min(factors[name], _bisected(enough))


def _least(slo: Slo, name: str, keeps: Keeps) -> float | None:
    """The least factor of one limit that is enough alone; None where none is."""

    def enough(factor: float) -> bool:
        return keeps(_loosened(slo, {name: factor}))

    return _bisected(enough) if enough(MOST) else None


def _bisected(enough: Callable[[float], bool]) -> float:
    """The least factor above 1 that is enough, to RESOLUTION and rounded up; MOST is."""
    low, high = 1.0, MOST
    while high / low > RESOLUTION:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if enough(middle) else (middle, high)
    return math.ceil(high * 100) / 100


def _loosened(slo: Slo, factors: dict[str, float]) -> Slo:
    """The SLO with these limits, by name, multiplied."""
    changed = {f"{name}_s": slo.thresholds_s[name] * factor for name, factor in factors.items()}
    return replace(slo, **changed)  # type: ignore[arg-type]


def _changes(slo: Slo, other: Slo) -> str:
    """``TTFT <= 812 ms``: the limits of ``other`` that differ."""
    return " and ".join(
        f"{name.upper()} <= {1000 * limit:.4g} ms"
        for name, limit in other.thresholds_s.items()
        if limit != slo.thresholds_s[name]
    )
