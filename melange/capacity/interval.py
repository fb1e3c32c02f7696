"""interval_of: what the load points of one size say about its highest sustainable rate under an SLO.

The search stops by it, reports it and finds it again in an existing file; a profile takes its lower end. So a rate is
never called confirmed in one place and open in another.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from melange.capacity.guess import corrected_guess
from melange.capacity.verdict import Verdict, has_samples, judge
from melange.measurements.measurement import Measurement
from melange.slo import Slo

Basis = Literal["nothing", "closed loops", "lone request", "open loops"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """Where a capacity lies, in requests/s of one replica.

    ``low_rps`` is the largest rate that holds (0: none is known to), ``high_rps`` the smallest above it that does not
    (None: none is known). ``basis`` says which points tell: open loops wherever one was run; else the throughput of
    closed loops, which is no more than a guess of what Poisson arrivals can do; ``lone request`` when not even that
    keeps the SLO, so that the capacity is 0. ``point`` is the one that the lower end rests on, ``guess_rps`` the rate
    that closed and open loops promise together (None without samples).
    """

    low_rps: float = 0.0
    high_rps: float | None = None
    basis: Basis = "nothing"
    point: Measurement | None = None
    guess_rps: float | None = None

    @property
    def width(self) -> float:
        """high / low; infinite where one of them is missing or not from open loops, 1 for an exact zero."""
        if self.basis == "lone request":
            return 1.0
        known = self.basis == "open loops" and self.low_rps > 0 and self.high_rps is not None
        return (self.high_rps or 0.0) / self.low_rps if known else math.inf

    def describe(self) -> str:
        high = "?" if self.high_rps is None else f"{self.high_rps:.3g}"
        return f"{self.low_rps:.3g}..{high}"


def interval_of(points: Sequence[Measurement], slo: Slo) -> Interval:
    """The interval that one size's points leave; bare capacities are not looked at.

    The ends are rates of load points, by their verdicts alone: where these contradict each other, the interval spans
    all of them. The guess moves no end, it only says where to look next.

    No end rises when the SLO tightens (:meth:`melange.slo.Slo.is_as_tight_as`; a lower end that is not known counts as
    0, an upper one as infinite). A point's verdict gets no better then, from fail over undecided to pass (see
    :func:`melange.capacity.verdict.judge`), and which
    points are looked at does not hang on the SLO. So the set P of rates that pass shrinks and the set F of those that
    fail grows. The lower end, max {p in P: p < min F}, is taken over a smaller set; the upper end,
    min {f in F: f > max P}, over a larger one. For closed loops they are max P, and min {f in F: f > max P}. A capacity
    of 0 needs that nothing passes and that the lone request fails, which both stay so.
    """
    opened = open_verdicts(points, slo)
    if not opened:
        return _from_closed_loops(points, slo)
    if not any(verdict == "pass" for _, verdict, _ in opened) and _lone_fails(points, slo):
        return _unreachable(points)
    low, high, point = _bracket(opened)
    guess = corrected_guess(points, slo) if any(has_samples(p) for _, _, p in opened) else None
    if guess is not None and low > 0 and high is not None and not low < guess < high:
        guess = math.sqrt(low * high)
    return Interval(low_rps=low, high_rps=high, basis="open loops", point=point, guess_rps=guess)


def open_verdicts(points: Sequence[Measurement], slo: Slo) -> list[tuple[float, Verdict, Measurement]]:
    """Rate, verdict and point of every open loop that says something, the longest of several at one rate.

    The rate is the one that was asked for: the bounds are those of its Poisson process, whatever a short run of it
    happened to bring. A longer run supersedes a short one, because queues are quiet most of the time.
    """
    longest: dict[float, Measurement] = {}
    for point in points:
        if point.loop != "open" or not point.valid:
            continue
        rate = asked_rps(point)
        if rate not in longest or (point.duration_s or 0.0) >= (longest[rate].duration_s or 0.0):
            longest[rate] = point
    return [(rate, judge(point, slo), point) for rate, point in longest.items()]


def asked_rps(point: Measurement) -> float:
    """The rate that an open loop was asked to put on: the profiler's own figure, else what was offered or served."""
    return point.nominal_rps if point.nominal_rps is not None else point.offered_rps or point.achieved_rps


def _bracket(judged: Sequence[tuple[float, Verdict, Measurement]]) -> tuple[float, float | None, Measurement | None]:
    """The largest rate that passed below all that failed, the smallest that failed above all that passed."""
    passed = [(rate, point) for rate, verdict, point in judged if verdict == "pass"]
    failed = [rate for rate, verdict, _ in judged if verdict == "fail"]
    least = min(failed, default=math.inf)
    most = max((rate for rate, _ in passed), default=0.0)
    low, point = max(((r, p) for r, p in passed if r < least), key=lambda found: found[0], default=(0.0, None))
    return low, min((rate for rate in failed if rate > most), default=None), point


def lone_points(points: Sequence[Measurement]) -> list[Measurement]:
    """Valid closed loops of one request at a time, in the order given."""
    closed = [p for p in points if p.loop == "closed" and p.valid and p.concurrency is not None]
    return [p for p in closed if (p.concurrency or 0) <= 1]


def _lone_fails(points: Sequence[Measurement], slo: Slo) -> bool:
    lone = lone_points(points)
    return bool(lone) and judge(lone[-1], slo) == "fail"


def _unreachable(points: Sequence[Measurement]) -> Interval:
    return Interval(high_rps=0.0, basis="lone request", point=lone_points(points)[-1])


def _from_closed_loops(points: Sequence[Measurement], slo: Slo) -> Interval:
    closed = [p for p in points if p.loop == "closed" and p.valid]
    judged = [(p.achieved_rps, judge(p, slo), p) for p in closed]
    if judged and all(verdict != "pass" for _, verdict, _ in judged) and _lone_fails(points, slo):
        return _unreachable(points)
    # throughput may fall as concurrency grows, so a failure at a lower rate contradicts nothing
    best = max((p for _, verdict, p in judged if verdict == "pass"), key=lambda p: p.achieved_rps, default=None)
    low = 0.0 if best is None else best.achieved_rps
    high = min((rate for rate, verdict, _ in judged if verdict == "fail" and rate > low), default=None)
    guess = corrected_guess(points, slo) if any(has_samples(p) for p in closed) else None
    basis: Basis = "closed loops" if closed else "nothing"
    return Interval(low_rps=low, high_rps=high, basis=basis, point=best, guess_rps=guess)
