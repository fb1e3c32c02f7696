"""next_step: the search for one size's capacity, as a pure function of the load points that it already has.

Closed-loop points at growing concurrency give a first guess of the capacity (see :mod:`melange.capacity.guess`).
Poisson loads at equal distances on both sides of it then confirm a bracket, correct the guess, and close the bracket
until it is narrow enough. Because the state is the list of points, an interrupted search goes on where it was, and
points of another SLO are taken up for free.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from melange.capacity.guess import SATURATION_GAIN
from melange.capacity.interval import Interval, interval_of, lone_points, open_verdicts
from melange.capacity.verdict import judge
from melange.errors import InputError
from melange.measurements.measurement import Measurement, Question
from melange.profiler.load import Load, Size
from melange.slo import Slo

Status = Literal["bracketed", "censored", "unreachable", "does not fit", "open", "not measured"]
# With these the interval holds the truth in 95 of 100 cells: see tests/benchmarks/bench_profile_search.py.
RESOLUTION = 1.39
REQUESTS = 4000
POINT_S = 3600.0
CLOSED_S = 600.0  # closed loops end with their last request; so long only where the server hangs

INDISTINCT = 1.04  # a verdict so near to the guess does not contradict it: there it is as much luck as evidence
NOTHING = Interval(high_rps=0.0)
LONE_REQUESTS = 6
LONE_ATTEMPTS = 2
SURE_SHARE = 0.4  # of a load's requests, before which a verdict against the guess is not believed
NEAREST = 1.06  # a load closer to the guess than this, or to an end that it should replace, is not worth its time
CLEAR = 1.1  # a load so far from the guess is decided soon
LEAST_GAIN = 1.015  # an end that moves by less has not moved
SAME_RATE = 0.02  # rates whose logarithms differ by less are the same question
FULL_SHARE = 0.7  # of the time that a load may take now: one that was cut shorter may be asked again
LEAST_REQUESTS = 80
LATENCIES_PER_LOAD = 20
LADDER_ROUNDS = 2.5
LADDER_FACTOR = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSettings:
    """What is searched for and how finely.

    ``resolution`` is the widest bracket high/low that counts as found. A Poisson load lasts until it is decided, at
    most as long as ``requests`` take at its rate (or 20 latencies, where that is longer), and ``point_s``: far from the
    limit an eighth of that or less.
    ``open_points`` bounds the Poisson loads of a cell: what is not decided by then is censored.
    """

    slo: Slo
    resolution: float = RESOLUTION
    point_s: float = POINT_S
    requests: int = REQUESTS
    max_concurrency: int = 256
    open_points: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1.01 <= self.resolution <= 4:
            raise InputError(
                f"resolution is {self.resolution}", fix=f"give a ratio between 1.01 and 4, such as {RESOLUTION}"
            )
        if not self.point_s > 0:
            raise InputError(f"seconds per load point is {self.point_s}", fix="give a positive time")
        if self.max_concurrency < 1:
            raise InputError(f"max concurrency is {self.max_concurrency}", fix="give at least 1")

    @property
    def samples_needed(self) -> int:
        """Requests that can decide the statistic: ``requests``, or more where misses are rare, up to 2000."""
        rare = 0 if self.slo.share is None else math.ceil(6 / (1 - self.slo.share))
        return max(self.requests, min(2000, rare))

    @property
    def question(self) -> Question:
        """What is asked: recorded with the points, so that another question has its own allowance of loads."""
        return Question(slo=self.slo, resolution=self.resolution, requests=self.requests, point_s=self.point_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """What is known of one size's highest sustainable rate; ``open`` means the search has more to do.

    ``not measured``: the server or the client was ill, as ``reason`` says; the interval is what was known before.
    """

    size: Size
    interval: Interval
    status: Status
    reason: str | None = None

    @property
    def low_rps(self) -> float:
        """The largest rate known to hold; 0: none."""
        return self.interval.low_rps

    @property
    def high_rps(self) -> float | None:
        """The smallest rate above it known not to hold; None: not known."""
        return self.interval.high_rps

    @property
    def width(self) -> float:
        """high / low; infinite where one of them is missing, 1 for an exact zero."""
        return 1.0 if self.high_rps == 0 else self.interval.width

    def describe(self) -> str:
        if self.status == "not measured":
            known = "" if self.interval.basis == "nothing" else f", {self.interval.describe()} req/s so far"
            return f"not measured: {self.reason}{known}"
        return f"{self.interval.describe()} req/s ({self.status})"


def next_step(
    size: Size, points: Sequence[Measurement], settings: SearchSettings, hint_rps: float | None = None
) -> Load | Capacity:
    """The next load to run, or the capacity once nothing more is worth running.

    ``points`` are all of this size, in the order in which they were measured. ``hint_rps`` is a capacity expected from
    elsewhere (a neighbouring size, a performance model): the ladder then starts at the concurrency it implies.
    """
    if does_not_fit(points):
        return Capacity(size=size, interval=NOTHING, status="does not fit")
    closed = {int(p.concurrency or 0): p for p in points if p.loop == "closed" and p.valid}
    if 1 not in closed:
        tried = sum(p.loop == "closed" for p in points)
        if tried >= LONE_ATTEMPTS:
            return not_measured(size, points, settings)
        return _closed_load(size, 1, replace(settings, seed=settings.seed + tried))
    known = capacity_so_far(size, points, settings)
    if known.status == "unreachable":
        tried = len(lone_points(points))
        if tried < LONE_ATTEMPTS:
            return _closed_load(size, 1, replace(settings, seed=settings.seed + tried))
        return known
    opened = sum(p.loop == "open" and _is_for(p, settings) for p in points)
    longer = _second_look(size, points, known, settings)
    if longer is not None and opened <= settings.open_points:  # not even the last point goes without
        return longer
    if known.status != "open":
        return known
    if opened >= settings.open_points:
        return replace(known, status="censored")
    if opened == 0:
        rung = _next_rung(closed, settings, hint_rps)
        if rung is not None and sum(p.loop == "closed" and p.concurrency == rung for p in points) == 0:
            return _closed_load(size, rung, settings)
    rate = _next_rate(points, known, settings)
    if rate is None or rate * settings.point_s < LEAST_REQUESTS:
        return replace(known, status="censored")  # or so slow that a load point's time cannot tell
    return _open_load(size, rate, settings, points)


def not_measured(size: Size, points: Sequence[Measurement], settings: SearchSettings) -> Capacity:
    """A size whose loads showed nothing, with the reason of the last of them.

    Where it was the client that could do no more, what it could put on the server is a lower bound: ``censored``.
    """
    last = next((point for point in reversed(points) if not point.valid), None)
    reason = None if last is None else last.invalid_reason
    known = capacity_so_far(size, points, settings)
    censored = last is not None and not last.failures and known.low_rps > 0
    return replace(known, status="censored" if censored else "not measured", reason=reason or "no load was valid")


def _is_for(point: Measurement, settings: SearchSettings) -> bool:
    """Whether a point was run for this question; one that does not say was."""
    return point.asked in (None, settings.question)


def does_not_fit(points: Sequence[Measurement]) -> bool:
    """Whether a point records that this size exceeds the engine's context or memory."""
    return bool(points) and all(p.loop == "capacity" and p.achieved_rps == 0 for p in points)


def capacity_so_far(size: Size, points: Sequence[Measurement], settings: SearchSettings) -> Capacity:
    """What the points say by now, whatever else may be worth measuring."""
    if does_not_fit(points):
        return Capacity(size=size, interval=NOTHING, status="does not fit")
    interval = interval_of(points, settings.slo)
    if interval.basis == "lone request":
        return Capacity(size=size, interval=interval, status="unreachable")
    bracketed = interval.width <= settings.resolution
    return Capacity(size=size, interval=interval, status="bracketed" if bracketed else "open")


def _second_look(size: Size, points: Sequence[Measurement], known: Capacity, settings: SearchSettings) -> Load | None:
    """A longer load at a rate where a short one contradicts the guess made of all of them: one of the two is wrong.

    Queues are quiet most of the time, so a short load easily passes where a longer one would not.
    """
    if known.interval.guess_rps is None or not settings.slo.thresholds_s:
        return None
    opened = [(p.nominal_rps, p) for p in points if p.loop == "open" and p.nominal_rps is not None]
    times_s: dict[float, list[float]] = {}
    for rate, point in opened:
        times_s.setdefault(rate, []).append(point.duration_s or 0.0)
    for rate, point in opened:
        if len(times_s[rate]) > 1 or not point.valid or point.saturated:
            continue
        verdict, apart = judge(point, settings.slo), rate / known.interval.guess_rps
        if (verdict == "pass" and apart > 1 / INDISTINCT) or (verdict == "fail" and apart < INDISTINCT):
            load = _open_load(size, rate, settings, points)
            if times_s[rate][0] < 0.9 * SURE_SHARE * load.max_s:
                return replace(load, min_requests=math.ceil(SURE_SHARE * rate * load.max_s))
    return None


def _next_rung(closed: dict[int, Measurement], settings: SearchSettings, hint_rps: float | None) -> int | None:
    """The next concurrency of the ladder, or None where the curve is known up to the SLO or to saturation."""
    rungs = sorted(closed)
    top = closed[rungs[-1]]
    if judge(top, settings.slo) == "fail" or rungs[-1] >= settings.max_concurrency:
        return None
    if len(rungs) > 1 and top.achieved_rps < SATURATION_GAIN * closed[rungs[-2]].achieved_rps:
        return None
    factor = LADDER_FACTOR
    if len(rungs) == 1 and hint_rps is not None and top.e2e_s is not None:
        factor = max(2, round(hint_rps * top.e2e_s.mean))  # Little's law
    return min(settings.max_concurrency, rungs[-1] * factor)


def _next_rate(points: Sequence[Measurement], known: Capacity, settings: SearchSettings) -> float | None:
    """Where the next Poisson load goes; None where no load would settle anything.

    Each load corrects the guess, and the ends are sought at equal distances around it, as far as the resolution
    allows: a load near the limit is the longest and the least certain. A side that is not found where it was expected
    is sought in growing steps.
    """
    half = math.sqrt(settings.resolution) ** 0.95
    verdicts = open_verdicts(points, settings.slo)
    passed, failed = (sum(v == kind and _is_for(p, settings) for _, v, p in verdicts) for kind in ("pass", "fail"))
    undecided = [
        rate
        for rate, verdict, point in verdicts
        if verdict == "undecided" and (point.duration_s or 0.0) > FULL_SHARE * _longest_s(points, rate, settings)
    ]
    confirmed = known.interval.basis == "open loops"
    low, high = (known.low_rps or None, known.high_rps) if confirmed else (None, None)
    centre, narrow = _within(known.interval.guess_rps or 1.0, low, high, half), settings.resolution / 1.005
    if low is None:
        rate = centre / half ** _stride(failed)
        opposite = 0.0 if high is None else high / narrow
        return _clear_of(undecided, opposite if rate < opposite < centre / CLEAR else rate, 1 / half)
    if high is None:
        rate = centre * half ** _stride(passed)
        return _clear_of(undecided, low * narrow if centre * CLEAR < low * narrow < rate else rate, half)
    wanted = _closing_rates(low, high, centre, narrow)
    wanted += _retreats(low, high, centre, undecided)
    return next((rate for rate in wanted if low < rate < high and not _tried(undecided, rate)), None)


def _stride(misses: int) -> int:
    """How many steps to go out after so many loads that all ended on the same side: 1, 1, 2, 4, 8."""
    return 1 if misses < 2 else min(8, 1 << (misses - 1))


def _closing_rates(low: float, high: float, centre: float, narrow: float) -> list[float]:
    """Rates that would narrow a bracket to the ratio ``narrow``, the one farthest from the guess first.

    An end as near to the guess as it should be stays, and the other is put opposite to it; with both ends far from it,
    each is first drawn in to its half of the ratio.
    """
    half = math.sqrt(narrow)
    closing = [rate for rate in (high / narrow, low * narrow) if abs(math.log(rate / centre)) > math.log(NEAREST)]
    drawn_in = [centre / half, centre * half]
    wanted = [rate for rate in closing if _moves_an_end(rate, low, high, centre, LEAST_GAIN)]
    wanted += [rate for rate in drawn_in if _moves_an_end(rate, low, high, centre, NEAREST)]
    wanted.sort(key=lambda rate: -abs(math.log(rate / centre)))
    return wanted or [centre / NEAREST, centre * NEAREST]


def _moves_an_end(rate: float, low: float, high: float, centre: float, gain: float) -> bool:
    """Whether a load at this rate, its verdict as the guess has it, would move its end by more than a factor."""
    return low * gain < rate < centre or centre < rate < high / gain


def _retreats(low: float, high: float, centre: float, undecided: Sequence[float]) -> list[float]:
    """Rates half-way from loads that stayed undecided to the ends that they should have replaced."""
    below, above = [r for r in undecided if low < r < centre], [r for r in undecided if centre < r < high]
    rates = [math.sqrt(low * min(below))] if below else []
    rates += [math.sqrt(high * max(above))] if above else []
    return [rate for rate in rates if min(rate / low, high / rate) > LEAST_GAIN]


def _tried(undecided: Sequence[float], rate: float) -> bool:
    """Whether a load so near stayed undecided that running it again would settle nothing."""
    return any(abs(math.log(rate / other)) < SAME_RATE for other in undecided)


def _within(guess: float, low: float | None, high: float | None, half: float) -> float:
    """The guess, moved to where a confirmed side says that it must be."""
    if low is not None and high is not None and not low < guess < high:
        return math.sqrt(low * high)
    if low is not None and guess < low:
        return low * half
    if high is not None and guess > high:
        return high / half
    return guess


def _clear_of(undecided: Sequence[float], rate: float, away: float) -> float:
    """Step away from rates that stayed undecided."""
    while _tried(undecided, rate):
        rate *= away**0.5
    return rate


def _closed_load(size: Size, concurrency: int, settings: SearchSettings) -> Load:
    rounds = LONE_REQUESTS if concurrency == 1 else LADDER_ROUNDS
    return Load(
        size=size,
        concurrency=concurrency,
        max_s=min(settings.point_s, CLOSED_S),
        min_requests=math.ceil(rounds * concurrency),
        seed=_seed(settings, size, concurrency),
    )


def _open_load(size: Size, rate: float, settings: SearchSettings, points: Sequence[Measurement]) -> Load:
    return Load(
        size=size,
        rate_rps=rate,
        max_s=_longest_s(points, rate, settings),
        min_requests=max(LEAST_REQUESTS, settings.samples_needed // 10),
        seed=_seed(settings, size, 1000 + sum(p.loop == "open" for p in points)),
    )


def _longest_s(points: Sequence[Measurement], rate: float, settings: SearchSettings) -> float:
    """How long a Poisson load at this rate may last."""
    latencies = LATENCIES_PER_LOAD * _expected_latency_s(points, rate)
    return min(settings.point_s, max(settings.samples_needed / rate, latencies))


def _seed(settings: SearchSettings, size: Size, number: int) -> int:
    return zlib.crc32(repr((settings.seed, tuple(size), number)).encode())


def _expected_latency_s(points: Sequence[Measurement], rate_rps: float) -> float:
    """Mean E2E expected at a rate, by Little's law on the closed-loop curve, as flat as saturation allows."""
    closed = sorted((p for p in points if p.loop == "closed" and p.e2e_s is not None), key=lambda p: p.achieved_rps)
    if not closed:
        return 0.0
    rates = [p.achieved_rps for p in closed]
    latencies = [p.e2e_s.mean for p in closed if p.e2e_s is not None]
    return float(np.interp(rate_rps, rates, latencies))
