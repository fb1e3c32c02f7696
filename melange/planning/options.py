"""SolveOptions: how to solve a workload. What is solved is the spec's."""

from __future__ import annotations

from dataclasses import dataclass

from melange.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class SolveOptions:
    """How to solve a workload.

    ``slice_factor`` N restricts shares to multiples of 1/N (the paper's slices), None lets them be continuous. ``gap``
    is the relative gap to prove (None: the solver's choice), ``time_limit_s`` bounds each solve. ``tie_outputs`` gives
    all output buckets of an input bucket the same shares, which a router that cannot know output lengths is able to
    follow. ``explain`` adds what caps are worth, break-even prices and the next-best fleets.
    """

    slice_factor: int | None = None
    gap: float | None = None
    time_limit_s: float | None = None
    tie_outputs: bool = False
    explain: bool = False

    def __post_init__(self) -> None:
        if self.slice_factor is not None and self.slice_factor < 1:
            raise InputError(f"slice factor is {self.slice_factor}", fix="give a whole number from 1")
        if self.gap is not None and not 0 <= self.gap < 1:
            raise InputError(f"gap is {self.gap}", fix="give a share from 0 to below 1, for example 0.001")
        if self.time_limit_s is not None and not self.time_limit_s > 0:
            raise InputError(f"time limit is {self.time_limit_s} s", fix="give a positive number of seconds")
