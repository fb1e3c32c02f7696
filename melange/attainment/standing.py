"""standing: what a confirmed fleet stands: more requests, longer ones, and the windows of the workload's own time.

Demand is moved one way at a time, on the same seeds, until the target is no longer kept, and the growth that is told
lies between one that was kept and one that was not. The windows are played one after another, queues carried over,
so that a short peak costs what it does and not what it would if it lasted. A trace that has times is replayed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from melange.arrays import FloatArray
from melange.attainment.trial import Trials, attainments_of
from melange.plan.plan import Plan
from melange.plan.promise import Standing, WindowAttainment
from melange.simulator.arrivals import Process, recorded_rate_rps
from melange.simulator.metrics import attained_by
from melange.simulator.report import joined
from melange.simulator.simulate import Scenario, SimulationOptions, replications_of
from melange.simulator.stretches import stretches_of
from melange.workload.windows import REQUESTS_PER_WINDOW
from melange.workload.workload import Workload

REPLICATIONS = 4
"""Replications behind each figure, where no other number is asked for."""
AT_MOST = 1.0
"""The largest growth that is tried: twice as much."""
FIRST_STEP = 0.1
"""The first growth that is tried."""
RESOLUTION = 0.01
"""Growth is told to this."""
MOST_REQUESTS = 100_000
"""Requests of all windows in one replication; longer windows are played in part."""
LEAST_COUNTED = 20
"""Requests of a window below which their share says nothing."""


def standing_of(plan: Plan, trials: Trials, workload: Workload, *, replications: int = REPLICATIONS) -> Standing:
    """What the plan's fleet stands before its simulated attainment falls below the trials' target.

    Demand is what the trials play; where they replay a trace, once instead of ``replications`` times. Windows are the
    workload's, or equal pieces of the trials' trace where it has times.
    """
    replications = 1 if trials.options.rotate else replications

    def growth(change: Callable[[SimulationOptions, float], SimulationOptions]) -> float:
        return _largest_kept(
            lambda share: _keeps(plan, replace(trials, options=change(trials.options, share)), replications)
        )

    trace = trials.trace
    replayed = trace is not None and trace.arrival_s is not None and bool(trace.span_s)
    return Standing(
        more_rate=growth(lambda options, share: _faster(options, plan, share)),
        longer_input=growth(lambda options, share: replace(options, longer_input=share)),
        longer_output=growth(lambda options, share: replace(options, longer_output=share)),
        at_most=AT_MOST,
        resolution=RESOLUTION,
        replications=replications,
        windows=_replayed(plan, trials) if replayed else _drawn(plan, trials, workload, replications),
    )


def _faster(options: SimulationOptions, plan: Plan, share: float) -> SimulationOptions:
    """More requests a second, over as long a time."""
    rate = options.rate_rps or sum(bucket.rate_rps for bucket in plan.buckets)
    requests = None if options.requests is None else round(options.requests * (1 + share))
    return replace(options, rate_rps=rate * (1 + share), requests=requests)


def _largest_kept(keeps: Callable[[float], bool]) -> float:
    """A multiple of RESOLUTION up to AT_MOST that is kept while the next is not, 0 if none is.

    By doubling from FIRST_STEP until one is not kept, then by halving: what holds by chance far above does not count.
    """
    steps = round(AT_MOST / RESOLUTION)

    def kept(step: int) -> bool:
        return keeps(round(step * RESOLUTION, 10))

    low, high = 0, round(FIRST_STEP / RESOLUTION)
    while kept(high):
        low, high = high, min(2 * high, steps)
        if low == steps:
            return AT_MOST
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if kept(middle) else (low, middle)
    return round(low * RESOLUTION, 10)


def _keeps(plan: Plan, trials: Trials, replications: int) -> bool:
    """Whether the mean attainment of these replications reaches the target; one that is hopeless is not repeated."""
    for scenario in trials.scenarios(plan):
        values = attainments_of(scenario, 0, 1)
        if replications > 1 and values[0] + max(0.02, 2.0 * (1.0 - trials.target)) >= trials.target:
            values += attainments_of(scenario, 1, replications - 1)
        if float(np.mean(values)) < trials.target:
            return False
    return True


def _drawn(plan: Plan, trials: Trials, workload: Workload, replications: int) -> tuple[WindowAttainment, ...]:
    """The workload's windows, one after another, at their rates and mixes; the plan's shares serve them all."""
    if not workload.windows:
        return ()
    # The rate that is played may be another than the workload's: windows keep their proportions to it.
    scale = 1.0 if trials.options.rate_rps is None else trials.options.rate_rps / workload.total_rate_rps
    rates = workload.window_rates_rps()[:, workload.rate_rps > 0] * scale
    # A trace without times gives its sizes to the promise; windows have those of the workload.
    scenario = replace(trials, trace=None).scenario(plan)
    lengths = np.array([window.length_s for window in workload.windows])
    played = lengths * min(1.0, MOST_REQUESTS / float(rates.sum(axis=1) @ lengths))
    scenario = replace(
        scenario, options=replace(scenario.options, warmup_share=0.0), stretches=stretches_of(rates, played.tolist())
    )
    met = _met_by_window(scenario, np.cumsum(played), replications)
    return tuple(
        WindowAttainment(start_s=w.start_s, length_s=w.length_s, rate_rps=float(rate), attainment=share)
        for w, rate, share in zip(workload.windows, rates.sum(axis=1), met, strict=True)
    )


def _replayed(plan: Plan, trials: Trials) -> tuple[WindowAttainment, ...]:
    """Equal pieces of the trace, which is replayed once, from its beginning, at the rate of the trials."""
    options = replace(trials.options, process=Process(kind="trace"), requests=None, rotate=False, warmup_share=0.0)
    scenario = replace(trials, options=options).scenario(plan)
    trace, inside = scenario.trace, scenario.inside
    assert trace is not None
    assert trace.arrival_s is not None
    assert inside is not None
    times = trace.arrival_s[inside] - trace.arrival_s[inside].min()
    count = max(1, scenario.requests // REQUESTS_PER_WINDOW)
    edges = np.linspace(0.0, times.max(), count + 1)
    pace = recorded_rate_rps(trace, inside) / scenario.rate_rps
    met = _met_by_window(scenario, edges[1:] * pace, 1)
    held = np.histogram(times, edges)[0]
    length = float(edges[1])
    return tuple(
        WindowAttainment(start_s=float(start), length_s=length, rate_rps=float(n) / (length * pace), attainment=share)
        for start, n, share in zip(edges[:-1], held, met, strict=True)
    )


def _met_by_window(scenario: Scenario, ends_s: FloatArray, replications: int) -> list[float | None]:
    """The share of each window's requests that keep the SLO, over all replications; ``ends_s`` (n_windows,)."""
    outcome = joined([r.outcome for r in replications_of(scenario, 0, replications, causes=False)])
    window = np.minimum(np.searchsorted(ends_s, outcome.arrival_s, side="right"), len(ends_s) - 1)
    attained = attained_by(outcome, scenario.plan.slo, window, len(ends_s))
    enough = np.bincount(window, minlength=len(ends_s)) >= LEAST_COUNTED
    return [float(share) if known else None for share, known in zip(attained, enough, strict=True)]
