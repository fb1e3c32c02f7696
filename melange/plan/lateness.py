"""PlanLateness: requests that are late by design, and what they save."""

from __future__ import annotations

from dataclasses import dataclass

from melange.solver.problem import Status


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanLateness:
    """How many requests are planned to be served without the SLO's limit, and so to miss it.

    ``at_most``: the share of all requests that may be late by design, the part of the SLO's allowance that the workload
    grants; what is left of it is for waiting. ``share``: the share that is, of a plan for several windows in that with
    most. ``in_time_usd_per_hour``: the cheapest
    fleet that serves every request in time, None where none was found; ``in_time_status`` what is proven of it.
    """

    at_most: float
    share: float
    in_time_usd_per_hour: float | None
    in_time_status: Status
