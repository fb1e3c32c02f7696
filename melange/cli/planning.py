"""The options of every command that solves a workload, and the PlanOptions that they make."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from melange.cli.options import names, pairs
from melange.cli.slo_options import share, tpot_definition_option

if TYPE_CHECKING:
    from melange.catalog.offers import PriceChoice
    from melange.planning.planner import PlanOptions
    from melange.slo import Slo

_OPTIONS = (
    tpot_definition_option,
    click.option("--slo-ttft-ms", type=float, help="TTFT limit in ms, in place of the file's."),
    click.option(
        "--attainment",
        callback=share,
        metavar="SHARE",
        help="Share of requests that must keep the SLO, in place of its mean.",
    ),
    click.option(
        "--slice-factor", type=click.IntRange(1), help="Cut each bucket into N equal slices, as the paper does."
    ),
    click.option(
        "--max", "maximum", multiple=True, callback=pairs, metavar="NAME=N", help="At most N of a GPU or instance."
    ),
    click.option(
        "--min", "minimum", multiple=True, callback=pairs, metavar="NAME=N", help="At least N of a GPU or instance."
    ),
    click.option("--only", multiple=True, callback=names, metavar="NAMES", help="Rent only these GPUs or instances."),
    click.option(
        "--exclude", multiple=True, callback=names, metavar="NAMES", help="Never rent these GPUs or instances."
    ),
    click.option("--max-cost-usd-per-hour", type=float, help="Budget per hour."),
    click.option("--headroom", type=float, help="Scale the rate by 1 + this, e.g. 0.1 for 10%."),
    click.option("--price-set", help="Price set, in place of the file's (see 'melange gpus')."),
    click.option("--prices", "price_file", type=click.Path(dir_okay=False), help="A CSV of your own prices."),
    click.option("--provider", "providers", multiple=True, callback=names, help="Rent only from these providers."),
    click.option(
        "--region",
        "regions",
        multiple=True,
        callback=names,
        help="Rent only in these regions; offers of no stated region are left out.",
    ),
    click.option("--spot/--no-spot", default=None, help="Whether spot offers may be used."),
    click.option(
        "--fill", type=click.Choice(["estimated"]), help="Let the performance model supply what is not measured."
    ),
    click.option(
        "--gap",
        type=click.FloatRange(0, 1, max_open=True),
        help="Relative gap to prove [default: 1e-6, large: 1e-3].",
    ),
    click.option(
        "--time-limit", "time_limit_s", type=click.FloatRange(0, min_open=True), help="Seconds a solve may take."
    ),
    click.option(
        "--routing",
        type=click.Choice(["by-size", "input-only"]),
        default="by-size",
        show_default=True,
        help="input-only: shares that a router can follow without knowing output lengths.",
    ),
)


def planning_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add everything that changes how a workload is solved, the rate and the TPOT limit left out."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def plan_options(
    slo: Slo, prices: PriceChoice, given: dict[str, Any], *, rate_rps: float | None = None, tpot_ms: float | None = None
) -> PlanOptions:
    """The options that a command was given, over a workload's own SLO and prices."""
    from melange.planning.planner import PlanOptions
    from melange.planning.rentable import Limits

    limits = Limits(
        maximum=given["maximum"],
        minimum=given["minimum"],
        only=given["only"],
        exclude=given["exclude"],
        max_cost_usd_per_hour=given["max_cost_usd_per_hour"],
    )
    kept = ("slice_factor", "headroom", "fill", "gap", "time_limit_s")
    return PlanOptions(
        **{name: given[name] for name in kept},
        rate_rps=rate_rps,
        slo=_slo(slo, given, tpot_ms),
        prices=_prices(prices, given),
        limits=limits,
        tie_outputs=given["routing"] == "input-only",
        explain=given.get("explain", False),
    )


def _slo(slo: Slo, given: dict[str, Any], tpot_ms: float | None) -> Slo | None:
    asked: dict[str, Any] = {} if tpot_ms is None else {"tpot_s": tpot_ms / 1000}
    if given["slo_ttft_ms"] is not None:
        asked["ttft_s"] = given["slo_ttft_ms"] / 1000
    asked |= {name: given[name] for name in ("tpot_definition", "attainment") if given[name] is not None}
    return replace(slo, **asked) if asked else None


def _prices(prices: PriceChoice, given: dict[str, Any]) -> PriceChoice | None:
    asked: dict[str, Any] = {}
    if given["price_set"]:
        asked |= {"price_set": given["price_set"], "file": None}
    if given["price_file"]:
        asked["file"] = given["price_file"]
    asked |= {name: given[name] for name in ("providers", "regions") if given[name]}
    if given["spot"] is not None:
        asked["spot"] = given["spot"]
    return replace(prices, **asked) if asked else None
