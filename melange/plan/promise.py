"""Promise: the fleet that keeps an SLO's attainment in simulation, and others that keep the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from melange.files.shown import html_table, number, share, short_repr, span_text
from melange.plan.costs import describe_instances
from melange.slo import percentile_name

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True, slots=True, kw_only=True)
class SizedFleet:
    """A fleet and what simulating it gave, or why a GPU type has none that keeps the promise.

    ``attainment_low``: what a re-check of the promise reaches with 90% confidence (see Trials.confirm), None where it
    was not put to that test. ``headroom`` maps a config to replicas / load - 1: by how much its capacity exceeds the
    mean load that it carries.
    """

    instances: Mapping[str, int] | None = None
    replicas: Mapping[str, int] | None = None
    cost_usd_per_hour: float | None = None
    attainment: float | None = None
    attainment_low: float | None = None
    headroom: Mapping[str, float] = field(default_factory=dict)
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowAttainment:
    """The simulated attainment of the requests that arrive in one window of a trace.

    ``start_s`` is in seconds after the trace's first row, ``length_s`` the window's length there, ``rate_rps`` the rate
    that was played. ``attainment``: the share that keeps the SLO, None where too few arrive to tell.
    """

    start_s: float
    length_s: float
    rate_rps: float
    attainment: float | None = None

    def describe(self) -> str:
        """``0:27:39 to 0:30:43``."""
        return span_text(self.start_s, self.length_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a promise stands: by how much demand may grow, one way at a time, before simulation finds it broken.

    ``more_rate``, ``longer_input`` and ``longer_output`` are the shares by which the rate, every request's input and
    every request's output may grow (0.21: 21%), to ``resolution``; none beyond ``at_most`` was tried. Each rests on the
    same ``replications`` replications. ``windows``: the attainment in each window of the workload's own time, played
    one after another; empty where none are known.
    """

    more_rate: float
    longer_input: float
    longer_output: float
    at_most: float
    resolution: float
    replications: int
    windows: tuple[WindowAttainment, ...] = ()

    @property
    def worst_window(self) -> WindowAttainment | None:
        """The window in which the fewest requests keep the SLO, the first of several; None where no window tells."""
        told = [window for window in self.windows if window.attainment is not None]
        return min(told, key=lambda window: window.attainment or 0.0, default=None)

    def describe(self) -> str:
        """``kept up to +21% rate, +6% input tokens, +3% output tokens; worst window 0:27:39 to 0:30:43: 92%``."""
        grown = ((self.more_rate, "rate"), (self.longer_input, "input tokens"), (self.longer_output, "output tokens"))
        kept = ", ".join(f"+{100 * growth:.3g}% {what}{self._beyond(growth)}" for growth, what in grown)
        worst = self.worst_window
        if worst is None:
            return f"kept up to {kept}"
        return f"kept up to {kept}; worst window {worst.describe()}: {share(worst.attainment)}"

    def _beyond(self, growth: float) -> str:
        return " (or more)" if growth >= self.at_most else ""

    def shortfall(self, target: float) -> str | None:
        """A sentence where the promise is not kept in every window; None where it is."""
        worst = self.worst_window
        if worst is None or worst.attainment is None or worst.attainment >= target:
            return None
        told = [window.attainment for window in self.windows if window.attainment is not None]
        below = sum(attainment < target for attainment in told)
        return (
            f"the promise of {100 * target:.10g}% is not kept in {below} of the {len(told)} windows of the workload's "
            f"own time: in the worst, {worst.describe()}, {_below(worst.attainment, target)} of the requests keep the "
            "SLO"
        )


def _below(attainment: float, target: float) -> str:
    """A share to as many digits as show that it is below the target."""
    digits = next((n for n in (1, 2, 3) if round(100 * attainment, n) < 100 * target), 4)
    return share(attainment, digits)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttainReport:
    """How the cheapest fleet that keeps the promise was found.

    ``bound_usd_per_hour`` is what the integer program proves for the mean load alone; ``paper`` the fleet it would
    rent, with its simulated attainment. ``simulated`` fleets were judged, those of single types included,
    ``confirmations`` of them by the confirming test; ``cut_off`` ruled out by a failing larger one (``spot_checked`` of
    them played after all, ``spot_check_passed`` against the assumption), ``overloaded`` cannot carry the demand.
    ``complete`` is false when the search ended before every cheaper fleet was ruled out; ``not_ruled_out`` then names
    the cheapest of those left. ``left_out`` are configs that serve no size in time. ``promise_*`` are None where the
    mean load alone has no plan. ``lone_share``: requests that keep the SLO on the best idle GPU, which no fleet
    exceeds. ``standing``: what the promise stands, None where that was not asked. ``windows``: where a fleet for every
    window (or a share of them) was asked for, the attainment in each that was to be kept, as if it lasted. That is a
    quick look; the confirming test was passed in the hardest, and in those that the search took in because a fleet that
    passed there fell short in them. ``paper`` is then the program's fleet for these windows.
    ``percentiles``: the promise is the SLO's percentiles, one by one: attainments are what
    :meth:`melange.slo.Slo.attained` says, ``target`` the highest.
    """

    target: float
    fleet: SizedFleet
    bound_usd_per_hour: float | None
    paper: SizedFleet
    promise_usd_per_hour: float | None
    promise_share: float | None
    single_type: Mapping[str, SizedFleet]
    savings: float | None
    policy: str
    arrivals: str
    sizes: str
    requests: int
    simulated: int
    cut_off: int
    overloaded: int
    spot_checked: int
    spot_check_passed: int
    confirmations: int
    complete: bool
    lone_share: float
    not_ruled_out: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    standing: Standing | None = None
    windows: tuple[WindowAttainment, ...] = ()
    percentiles: bool = False

    @property
    def rival(self) -> str:
        """What the program alone plans for: ``the mean load``, or ``the windows' loads``."""
        return "the windows' loads" if self.windows else "the mean load"

    @property
    def shortfall(self) -> str | None:
        """A sentence where simulation finds the promise broken within the workload's own windows; None otherwise."""
        short = None if self.standing is None else self.standing.shortfall(self.target)
        return short if short is None or self.windows else f"{short}; --for-every-window plans for them all"

    def __repr__(self) -> str:
        return short_repr("AttainReport", self._headline())

    def _headline(self) -> str:
        fleet = describe_instances(self.fleet.instances or {})
        promise = percentile_name(self.target) if self.percentiles else share(self.target)
        return (
            f"{fleet} at ${number(self.fleet.cost_usd_per_hour)}/h keeps the promise for {promise} "
            f"(simulated {share(self.fleet.attainment, 2)}); {self.rival} alone "
            f"takes ${number(self.paper.cost_usd_per_hour)}/h"
        )

    def _fleets(self) -> dict[str, SizedFleet]:
        alone = {f"{gpu} only": fleet for gpu, fleet in self.single_type.items()}
        return {"cheapest": self.fleet, f"{self.rival.removeprefix('the ')} only": self.paper, **alone}

    def _repr_html_(self) -> str:
        rows = [
            (name, fleet.reason if fleet.instances is None else describe_instances(fleet.instances),
             number(fleet.cost_usd_per_hour), share(fleet.attainment, 2), share(fleet.attainment_low, 2))
            for name, fleet in self._fleets().items()
        ]  # fmt: skip
        return html_table(self._headline(), ("", "fleet", "USD per hour", "keep the SLO", "at least (90%)"), rows)

    def to_frame(self) -> DataFrame:
        """One row a fleet.

        Index ``choice``: ``cheapest`` (keeps the promise), ``mean load only`` (what the integer program alone would
        rent), then ``<GPU> only`` at the same promise. Columns: ``fleet`` in words, ``cost_usd_per_hour``,
        ``attainment`` and ``attainment_low`` (fractions, as in :class:`SizedFleet`; NaN where not known), ``reason``
        why there is none.
        """
        import pandas as pd

        rows = [
            {
                "fleet": None if fleet.instances is None else describe_instances(fleet.instances),
                "cost_usd_per_hour": fleet.cost_usd_per_hour,
                "attainment": fleet.attainment,
                "attainment_low": fleet.attainment_low,
                "reason": fleet.reason,
            }
            for fleet in self._fleets().values()
        ]
        frame = pd.DataFrame(rows, index=pd.Index(list(self._fleets()), name="choice"))
        return frame.astype({"cost_usd_per_hour": float, "attainment": float, "attainment_low": float})
