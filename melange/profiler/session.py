"""profile: measure every size on a running engine, load by load, until all are bracketed or the budget is gone."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from melange.capacity.verdict import judge
from melange.errors import EngineError
from melange.measurements.measurement import Measurement
from melange.profiler.budget import Budget
from melange.profiler.client import CompletionsClient
from melange.profiler.journal import Journal
from melange.profiler.load import Load, LoadRun, Size
from melange.profiler.loadgen import Stop, Tick, run_load
from melange.profiler.loadpoint import Subject, statistic_text, summarise
from melange.profiler.search import (
    NOTHING,
    Capacity,
    SearchSettings,
    capacity_so_far,
    does_not_fit,
    next_step,
    not_measured,
)
from melange.profiler.serving import Serving

Measure = Callable[[Load, Stop, Tick], LoadRun]
WARM_UP_SHARE = 0.25  # of a load point's longest time
ATTEMPTS = 2  # at a load that shows nothing, before its size is left
ILL_SIZES = 3  # left in a row, after which the server is not asked any more
RETRY_PAUSE_S = 2.0
UNKNOWN_WIDTH = 20.0  # log-width that an unbracketed cell counts with: the span of a ladder of rates


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a run stands: a load about to begin, running (``statistic``), or a cell that is done (``capacity``)."""

    cell: int
    cells: int
    size: Size
    load: Load | None = None
    statistic: str | None = None
    point: Measurement | None = None
    capacity: Capacity | None = None
    spent_s: float = 0.0
    spent_usd: float | None = None
    left_s: float = math.inf


Report = Callable[[Progress], None]


def live_measure(serving: Serving, timeout_s: float = 600.0) -> Measure:
    """Loads on a real server."""

    def measure(load: Load, stop: Stop, tick: Tick) -> LoadRun:
        async def run() -> LoadRun:
            async with CompletionsClient(serving.endpoint, dialect=serving.dialect, timeout_s=timeout_s) as client:
                return await run_load(client, load, stop=stop, tick=tick)

        return asyncio.run(run())

    return measure


def profile(
    sizes: Sequence[Size],
    settings: SearchSettings,
    *,
    journal: Journal,
    measure: Measure,
    subject: Subject,
    budget: Budget,
    check: Callable[[], None],
    max_model_len: int | None = None,
    predict: Callable[[Size], float | None] | None = None,
    report: Report | None = None,
    pause: Callable[[float], None] = time.sleep,
) -> tuple[Capacity, ...]:
    """The capacity of every size, in the order given; each load point is in the journal before the next begins.

    ``check`` raises where the engine has died. ``predict`` gives the capacity in requests/s that a performance model
    expects of a size, or None. Without a limit sizes are finished one after the other; with one, each load goes where
    it promises the largest reduction of uncertainty per second.

    A load that shows nothing (errors, an ill client) is tried once more, ``pause`` having waited; then its size is left
    as ``not measured``, with the reason, and another run tries it again. Raises EngineError where so many sizes in a
    row, or all of them, were left: the server is ill, and going on would only hammer it. Points finished before are
    kept.
    """
    run = _Session(sizes, settings, journal, measure, subject, budget, check, max_model_len, predict, report, pause)
    return run.finish()


class _Session:
    """The mutable state of one run."""

    def __init__(
        self,
        sizes: Sequence[Size],
        settings: SearchSettings,
        journal: Journal,
        measure: Measure,
        subject: Subject,
        budget: Budget,
        check: Callable[[], None],
        max_model_len: int | None,
        predict: Callable[[Size], float | None] | None,
        report: Report | None,
        pause: Callable[[float], None],
    ) -> None:
        self.sizes, self.settings, self.journal = tuple(sizes), settings, journal
        self.measure, self.subject, self.budget, self.check = measure, subject, budget, check
        self.max_model_len, self.predict, self.report, self.pause = max_model_len, predict, report, pause
        self.done: dict[Size, Capacity] = {}
        self.left: list[Size] = []  # in a row, because a load showed nothing

    def finish(self) -> tuple[Capacity, ...]:
        for size in self.sizes:
            self.refuse_too_long(size)
        self.warm_up()
        while (chosen := self.choose()) is not None:
            size, load = chosen
            self.run(size, load)
        return tuple(self.done.get(size) or self.interval_left(size) for size in self.sizes)

    def warm_up(self) -> None:
        """Let an engine that has just started compile and fill its caches; these requests are not measured."""
        fitting = [size for size in self.sizes if self.fits(size)]
        if fitting and self.choose() is not None:
            load = Load(size=fitting[0], concurrency=4, max_s=WARM_UP_SHARE * self.settings.point_s, min_requests=16)
            self.measure(load, lambda run: False, lambda run: None)

    def refuse_too_long(self, size: Size) -> None:
        """File a size beyond the context window as one that cannot be served, without ever sending it.

        One that an engine with a longer context has served before is not sent either, and its points are kept.
        """
        if self.fits(size):
            return
        if known := self.journal.points(size):
            if not does_not_fit(known):
                self.done[size] = Capacity(size=size, interval=NOTHING, status="does not fit")
            return
        reason = f"{_length(size)} tokens exceed the engine's context of {self.max_model_len}"
        key = self.subject.key
        self.journal.append(
            Measurement(
                model=key.model,
                gpu=key.gpu,
                tp=key.tp,
                precision=key.precision,
                engine=key.engine,
                input_tokens=size.input_tokens,
                output_tokens=size.output_tokens,
                cached_tokens=size.cached_tokens,
                loop="capacity",
                achieved_rps=0.0,
                engine_version=self.subject.engine_version,
                date=self.subject.date,
                extra={"does_not_fit": reason},
            )
        )

    def fits(self, size: Size) -> bool:
        """Whether the engine's context holds it, as far as the engine tells."""
        return self.max_model_len is None or _length(size) <= self.max_model_len

    def points(self, size: Size) -> list[Measurement]:
        """What is known of a size; a context that was too short says nothing once the engine tells of a longer one."""
        points = self.journal.points(size)
        if self.max_model_len is None or not self.fits(size):
            return points
        return [point for point in points if not does_not_fit([point])]

    def choose(self) -> tuple[Size, Load] | None:
        """The next load: the first unfinished size's, or under a budget the one worth most per second that fits."""
        candidates = []
        for size in self.sizes:
            if size in self.done:
                continue
            step = next_step(size, self.points(size), self.settings, self.hint(size))
            if isinstance(step, Capacity):
                self.finished(step)
            elif not self.budget.limited:
                return size, step
            elif step.max_s <= self.budget.left_s or self.expected_s(step) <= self.budget.left_s:
                candidates.append((self.gain(size) / self.expected_s(step), size, step))
        if not candidates:
            return None
        _, size, load = max(candidates, key=lambda candidate: candidate[0])
        return size, load

    def gain(self, size: Size) -> float:
        """How many e-folds of uncertainty a size still has."""
        known = capacity_so_far(size, self.points(size), self.settings)
        return math.log(min(math.inf if known.status == "unreachable" else known.width, UNKNOWN_WIDTH))

    def expected_s(self, load: Load) -> float:
        """About how long a load takes; closed loops end with their last request."""
        lone = next((p for p in self.journal.points(load.size) if p.loop == "closed" and p.e2e_s), None)
        if load.concurrency is not None and lone is not None and lone.e2e_s is not None:
            return min(load.max_s, 2 * load.min_requests / load.concurrency * lone.e2e_s.mean)
        return load.max_s if load.rate_rps is not None else load.max_s / 10

    def hint(self, size: Size) -> float | None:
        """Capacity expected from a performance model, or from the nearest finished size and the two lone latencies."""
        if self.predict is not None and (predicted := self.predict(size)) is not None:
            return predicted
        lone = self.lone_latency_s(size)
        known = [c for c in self.done.values() if c.status == "bracketed" and c.low_rps > 0]
        if lone is None or not known:
            return None
        near = min(known, key=lambda c: _distance(c.size, size))
        there = self.lone_latency_s(near.size)
        expected = None if there is None else near.low_rps * there / lone
        larger = [c.low_rps for c in known if _at_least(c.size, size)]
        smaller = [c.high_rps for c in known if c.high_rps is not None and _at_least(size, c.size)]
        if expected is None:
            return None
        # capacity falls with either length: finished sizes bound the guess from both sides
        return min(max(expected, max(larger, default=0.0)), min(smaller, default=math.inf))

    def lone_latency_s(self, size: Size) -> float | None:
        for point in self.journal.points(size):
            if point.loop == "closed" and point.concurrency == 1 and point.valid and point.e2e_s is not None:
                return point.e2e_s.mean
        return None

    def run(self, size: Size, load: Load) -> None:
        self.tell(size, load=load)

        def decided(run: LoadRun) -> bool:
            return judge(summarise(run, self.subject), self.settings.slo) != "undecided"

        def tick(run: LoadRun) -> None:
            point = summarise(run, self.subject)
            self.tell(size, load=load, statistic=statistic_text(point, self.settings.slo))

        run = self.measure(load, decided, tick)
        point = replace(summarise(run, self.subject), asked=self.settings.question)
        self.journal.append(point)
        self.tell(size, load=load, point=point)
        if not all(record.ok for record in run.records):
            self.check()
        if point.valid:
            self.left.clear()
        elif self.fruitless(size, point):
            self.finished(not_measured(size, self.points(size), self.settings))
        elif point.failures:
            self.pause(RETRY_PAUSE_S)

    def fruitless(self, size: Size, last: Measurement) -> bool:
        """Whether a load that showed nothing was tried often enough; one of errors, whatever the load before it was."""
        tried = self.points(size)[-ATTEMPTS:]
        same = [p for p in tried if not p.valid and (last.failures or _is_like(p, last))]
        return len(same) >= ATTEMPTS

    def finished(self, found: Capacity) -> None:
        """Note what a size came to; EngineError where the server has been ill for too many of them."""
        self.done[found.size] = found
        self.tell(found.size, capacity=found)
        if found.status != "not measured":
            return
        self.left.append(found.size)
        tried = [size for size in self.sizes if self.fits(size)]
        if len(self.left) >= min(ILL_SIZES, len(tried)):
            raise EngineError(
                f"{len(self.left)} sizes in a row not measured, the last {found.size.describe()}: {found.reason}; "
                "load points before are kept, and the same command tries again"
            )

    def interval_left(self, size: Size) -> Capacity:
        """What is known of a size that the budget left unfinished."""
        return capacity_so_far(size, self.points(size), self.settings)

    def tell(
        self,
        size: Size,
        *,
        load: Load | None = None,
        statistic: str | None = None,
        point: Measurement | None = None,
        capacity: Capacity | None = None,
    ) -> None:
        if self.report is not None:
            self.report(
                Progress(
                    cell=self.sizes.index(size) + 1,
                    cells=len(self.sizes),
                    size=size,
                    load=load,
                    statistic=statistic,
                    point=point,
                    capacity=capacity,
                    spent_s=self.budget.spent_s,
                    spent_usd=self.budget.spent_usd,
                    left_s=self.budget.left_s,
                )
            )


def _length(size: Size) -> int:
    return size.input_tokens + size.output_tokens


def _is_like(a: Measurement, b: Measurement) -> bool:
    return (a.loop, a.nominal_rps, a.concurrency if a.loop == "closed" else None) == (
        b.loop, b.nominal_rps, b.concurrency if b.loop == "closed" else None
    )  # fmt: skip


def _distance(a: Size, b: Size) -> float:
    return abs(math.log(a.input_tokens / b.input_tokens)) + abs(math.log(a.output_tokens / b.output_tokens))


def _at_least(a: Size, b: Size) -> bool:
    return a.input_tokens >= b.input_tokens and a.output_tokens >= b.output_tokens
