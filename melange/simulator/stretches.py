"""Stretches: demand whose rate and mix move, as stretches of time played one after another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from melange.arrays import FloatArray
from melange.simulator.arrivals import Arrivals, Process, Sizes, arrival_times


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stretch:
    """A stretch of time: how long, at what rate, and of which sizes, ``probability`` (n_sizes,) of each row."""

    length_s: float
    rate_rps: float
    probability: FloatArray


def stretches_of(rates_rps: FloatArray, lengths_s: Sequence[float]) -> tuple[Stretch, ...]:
    """A stretch for each row of ``rates_rps`` (n_stretches, n_sizes); one at which nothing arrives has a rate of 0."""
    totals = rates_rps.sum(axis=1)
    return tuple(
        Stretch(length_s=length, rate_rps=float(total), probability=rates / total if total > 0 else rates)
        for rates, length, total in zip(rates_rps, lengths_s, totals, strict=True)
    )


def drawn_stretches(stretches: Sequence[Stretch], sizes: Sizes, process: Process, rng: np.random.Generator) -> Arrivals:
    """Requests of all stretches in order, each stretch as uneven as the process says.

    Their number is drawn: what arrives within a stretch. InputError where nothing does in any.
    """
    times, rows, start_s = [np.zeros(0)], [np.zeros(0, dtype=np.int64)], 0.0
    for stretch in stretches:
        if stretch.rate_rps > 0:
            own = _within(stretch, process, rng)
            times.append(start_s + own)
            rows.append(rng.choice(len(stretch.probability), size=len(own), p=stretch.probability))
        start_s += stretch.length_s
    input_tokens, output_tokens, cached_tokens = sizes.of_rows(np.concatenate(rows), rng)
    return Arrivals(
        arrival_s=np.concatenate(times),
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cached_tokens=cached_tokens,
    )


def _within(stretch: Stretch, process: Process, rng: np.random.Generator) -> FloatArray:
    """Arrival times from 0 to the stretch's length."""
    count = int(1.2 * stretch.rate_rps * stretch.length_s) + 20
    while True:
        times = arrival_times(process, count, stretch.rate_rps, rng)
        if times[-1] >= stretch.length_s:
            return times[times < stretch.length_s]
        count *= 2
