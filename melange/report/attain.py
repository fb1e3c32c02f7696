"""A closed-loop search as a table."""

from __future__ import annotations

from rich.console import RenderableType
from rich.markup import escape

from melange.plan.costs import describe_instances
from melange.plan.promise import AttainReport, SizedFleet, Standing
from melange.report.tables import percent, table, usd


def attain_parts(report: AttainReport) -> list[RenderableType]:
    """What the promise takes and costs, beside the plan for the mean load and every GPU type alone."""
    return [*_headline(report), "", _fleets(report), "", *_search(report)]


def _headline(report: AttainReport) -> list[str]:
    fleet = report.fleet
    lines = [
        f"[bold]{escape(describe_instances(fleet.instances or {}))} at {usd(fleet.cost_usd_per_hour)}/h[/bold]: "
        f"{confirmed(report)}; fresh replications reach at least {percent(fleet.attainment_low, 2)} "
        f"with 90% confidence (target {_target(report.target)})",
    ]
    if report.promise_usd_per_hour is not None and report.promise_share is not None:
        more = f"{usd(abs(report.promise_usd_per_hour))} ({100 * abs(report.promise_share):.1f}%)"
        how = "more" if report.promise_usd_per_hour >= 0 else "less"
        lines.append(
            f"that is {more} {how} than the plan for {report.rival}, whose fleet attains "
            f"{percent(report.paper.attainment, 2)}"
        )
    if report.savings is not None:
        lines.append(f"savings on the best single type that keeps the same promise: {percent(report.savings)}")
    told = [window.attainment for window in report.windows if window.attainment is not None]
    if told:
        lines.append(
            f"kept in {sum(value >= report.target for value in told)} of {len(told)} windows played as if they lasted, "
            f"{percent(min(told), 2)} in the hardest"
        )
    if report.standing is not None:
        lines.append(f"[bold]{escape(report.standing.describe())}[/bold] ({_how(report.standing)})")
    return lines


def confirmed(report: AttainReport) -> str:
    """What the simulations confirm of the fleet's promise."""
    share = percent(report.fleet.attainment, 2)
    if report.percentiles:
        return f"confirmed with at least {share} of simulated requests within each limit of the SLO"
    return f"confirmed at {share} of simulated requests keeping the SLO jointly"


def _how(standing: Standing) -> str:
    """What the figures of a standing rest on."""
    text = f"simulated one at a time to {100 * standing.resolution:g}%, {standing.replications} replications each"
    if not standing.windows:
        return f"{text}; the workload has no windows"
    return f"{text}; {len(standing.windows)} windows one after another"


def promise_warning(report: AttainReport | None) -> str | None:
    """What comes first: that the promise is not kept within the workload's own windows."""
    return None if report is None else report.shortfall


def _target(share: float) -> str:
    """A target as it was asked for, not rounded to what it is not."""
    return f"{100 * share:.10g}%"


def _row(name: str, fleet: SizedFleet) -> list[str]:
    if fleet.cost_usd_per_hour is None:
        return [name, escape(fleet.reason or ""), "-", "-", "-"]
    room = ", ".join(f"{config} {100 * share:.0f}%" for config, share in fleet.headroom.items())
    fleet_text = describe_instances(fleet.instances or {})
    return [name, fleet_text, usd(fleet.cost_usd_per_hour), percent(fleet.attainment, 2), room]


def _fleets(report: AttainReport) -> RenderableType:
    rows = [_row("promise kept", report.fleet), _row(f"{report.rival.removeprefix('the ')} only", report.paper)]
    rows += [_row(f"{gpu} alone", fleet) for gpu, fleet in report.single_type.items()]
    return table("Fleets", ("", "fleet", "cost/h", "attainment", "headroom found"), rows, left=2)


def _search(report: AttainReport) -> list[str]:
    lines = [
        f"{report.simulated} fleet{'' if report.simulated == 1 else 's'} simulated "
        f"({report.requests} requests a replication, {escape(report.arrivals)}, "
        f"policy {escape(report.policy)}; sizes: {escape(report.sizes)}), "
        f"{report.confirmations} of them put to the sequential test; "
        f"{report.overloaded} cannot carry the load at all, whatever the latency",
        f"{percent(report.lone_share, 2)} of the requests keep {'each limit of ' if report.percentiles else ''}the SLO "
        "on the best idle GPU",
    ]
    if report.spot_checked:
        lines.append(
            f"of the fleets cut off, {report.spot_checked} were simulated after all: {report.spot_check_passed} pass"
        )
    if not report.complete:
        names = "; ".join(map(escape, report.not_ruled_out)) or "fleets of other machines"
        lines.append(f"warning: not every cheaper fleet is ruled out, among them {names}")
    if report.left_out:
        lines.append(f"left out, as they serve no size in time: {escape(', '.join(report.left_out))}")
    return lines
