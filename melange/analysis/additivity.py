"""Additivity: do the loads of requests of different sizes add up, as the integer program assumes?

For one replica of a config, each size alone carries some rate at the limit. A mix is played at rates that are shares of
those, scaled together; were loads additive, it would reach the limit where the shares sum to 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from melange.perfmodel.clock import StepClock
from melange.plan.plan import Plan
from melange.routing.table import fleet_configs
from melange.simulator.arrivals import Arrivals
from melange.simulator.clocks import plan_clocks
from melange.simulator.run import play_replica
from melange.slo import Slo, tpot_s

MIXES = 6
SIZES_PER_MIX = 3
REQUESTS = 3000
TOLERANCE = 0.05
"""Errors within it are noise of the simulation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """A mix of bucket sizes ``(input, output)`` in equal loads, and the sum of loads at which it reaches the limit."""

    sizes: tuple[tuple[int, int], ...]
    load_at_limit: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Additivity:
    """The test of one config.

    ``mean_error`` and ``worst_error`` are load at the limit - 1 over the mixes, the worst being the lowest: below 0,
    loads add up to more than their sum and the program is optimistic. ``limit`` is what was held: the SLO, or that
    the queue does not grow.
    """

    config: str
    limit: str
    mixes: tuple[Mix, ...]
    mean_error: float
    worst_error: float

    @property
    def verdict(self) -> str:
        """``additive`` within 5%, else ``optimistic`` (mixes carry less) or ``conservative`` (they carry more)."""
        if self.mean_error < -TOLERANCE or self.worst_error < -2 * TOLERANCE:
            return "optimistic"
        return "conservative" if self.mean_error > TOLERANCE else "additive"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "verdict": self.verdict}


def additivity(plan: Plan, *, seed: int = 0, requests: int = REQUESTS) -> dict[str, Additivity]:
    """The additivity test of each config that the plan uses, on mixes of the buckets that it serves there.

    The limit is the plan's SLO on means (one of an attainment or of percentiles is tested at its shares); without one,
    and below it, the replica's queue must not grow. A config that serves fewer than two sizes has nothing to add and is
    left out.
    """
    clocks = plan_clocks(plan, fleet_configs(plan))
    result = {}
    for name, entry in clocks.items():
        sizes = [
            (round(b.mean_input_tokens or 1), round(b.mean_output_tokens or 1))
            for b in sorted(plan.buckets, key=lambda b: -b.rate_rps * b.shares.get(name, 0.0))
            if b.shares.get(name)
        ]
        if len(set(sizes)) > 1:
            result[name] = _test(name, entry.clock, plan.slo, list(dict.fromkeys(sizes)), seed, requests)
    return result


def _test(
    name: str, clock: StepClock, slo: Slo, sizes: Sequence[tuple[int, int]], seed: int, requests: int
) -> Additivity:
    draw = np.random.default_rng([seed, 11])
    alone = {size: _rate_at_limit(clock, slo, [size], [1.0], draw, requests) for size in sizes}
    usable = [size for size in sizes if alone[size] > 0]
    mixes = []
    for _ in range(MIXES if len(usable) > 1 else 0):
        count = min(SIZES_PER_MIX, len(usable))
        picked = [usable[k] for k in draw.choice(len(usable), count, replace=False)]
        share = [alone[size] / count for size in picked]
        total = _rate_at_limit(clock, slo, picked, share, draw, requests)
        mixes.append(Mix(sizes=tuple(picked), load_at_limit=total / sum(share)))
    errors = [mix.load_at_limit - 1 for mix in mixes] or [0.0]
    limit = slo.describe() if slo.thresholds_s else "a queue that does not grow"
    return Additivity(
        config=name,
        limit=limit,
        mixes=tuple(mixes),
        mean_error=float(np.mean(errors)),
        worst_error=float(min(errors)),
    )


def _rate_at_limit(
    clock: StepClock,
    slo: Slo,
    sizes: Sequence[tuple[int, int]],
    share: Sequence[float],
    draw: np.random.Generator,
    requests: int,
) -> float:
    """The highest total rate of these sizes, in these proportions, within the limit; 0 where even a trickle is not."""
    row = draw.choice(len(sizes), size=requests, p=np.array(share) / sum(share))
    gaps = draw.exponential(size=requests)
    inputs, outputs = np.array(sizes, dtype=np.int64)[row].T

    def holds(rate: float) -> bool:
        arrivals = Arrivals(
            arrival_s=np.cumsum(gaps) / rate,
            input_tokens=inputs,
            output_tokens=outputs,
            cached_tokens=np.zeros(requests, dtype=np.int64),
        )
        return _within(play_replica(clock, arrivals).requests, slo)

    low, high = 1e-4, 1e-3
    if not holds(low):
        return 0.0
    while holds(high):
        low, high = high, high * 4
    while high / low > 1.01:
        middle = float(np.sqrt(low * high))
        low, high = (middle, high) if holds(middle) else (low, middle)
    return float(np.sqrt(low * high))


def _within(requests: Any, slo: Slo) -> bool:
    """Whether a run keeps the SLO, and its second half does not wait much longer than its first."""
    skipped = len(requests) // 10
    requests = requests[skipped:]
    e2e, ttft = requests.end_s - requests.arrival_s, requests.first_s - requests.arrival_s
    half = len(e2e) // 2
    service = float((requests.end_s - requests.start_s).mean())
    if float(ttft[half:].mean() - ttft[:half].mean()) > max(service, 0.1 * float(np.ptp(requests.arrival_s))) / 2:
        return False
    if slo.attainment is not None:
        return bool(slo.met(e2e_s=e2e, ttft_s=ttft, output_tokens=requests.output_tokens).mean() >= slo.attainment)
    if slo.quantiles:
        kept = slo.within(e2e_s=e2e, ttft_s=ttft, output_tokens=requests.output_tokens)
        return all(bool(kept[name].mean() >= quantile) for name, quantile in slo.quantiles.items())
    tpot = tpot_s(slo.tpot_definition, e2e_s=e2e, ttft_s=ttft, output_tokens=requests.output_tokens)
    values = {"tpot": tpot, "ttft": ttft, "e2e": e2e}
    return all(float(np.nanmean(values[name])) <= limit for name, limit in slo.thresholds_s.items())
