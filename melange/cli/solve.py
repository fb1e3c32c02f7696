"""``melange solve``: the cheapest fleet for a workload."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click

from melange.cli.options import OUTPUTS, names, output_option, pairs


@click.command()
@click.argument("workload")
@click.option("--rate", "rate_rps", type=float, help="Requests per second, in place of the file's.")
@click.option("--slo-tpot-ms", type=float, help="TPOT limit in ms, in place of the file's.")
@click.option(
    "--tpot-definition",
    type=click.Choice(["decode", "e2e_per_token"]),
    help="Which TPOT: (latency - TTFT) / (tokens - 1), or latency / tokens.",
)
@click.option("--slo-ttft-ms", type=float, help="TTFT limit in ms, in place of the file's.")
@click.option("--attainment", type=float, help="Share of requests that must keep the SLO, in place of its mean.")
@click.option("--slice-factor", type=click.IntRange(1), help="Cut each bucket into N equal slices, as the paper does.")
@click.option(
    "--max", "maximum", multiple=True, callback=pairs, metavar="NAME=N", help="At most N of a GPU or instance."
)
@click.option(
    "--min", "minimum", multiple=True, callback=pairs, metavar="NAME=N", help="At least N of a GPU or instance."
)
@click.option("--only", multiple=True, callback=names, metavar="NAMES", help="Rent only these GPUs or instances.")
@click.option("--exclude", multiple=True, callback=names, metavar="NAMES", help="Never rent these GPUs or instances.")
@click.option("--max-cost-usd-per-hour", type=float, help="Budget per hour.")
@click.option("--headroom", type=float, help="Scale the rate by 1 + this, e.g. 0.1 for 10%.")
@click.option("--price-set", help="Price set, in place of the file's (see 'melange gpus').")
@click.option("--prices", "price_file", type=click.Path(dir_okay=False), help="A CSV of your own prices.")
@click.option("--provider", "providers", multiple=True, callback=names, help="Rent only from these providers.")
@click.option("--region", "regions", multiple=True, callback=names, help="Rent only in these regions.")
@click.option("--spot/--no-spot", default=None, help="Whether spot offers may be used.")
@click.option("--fill", type=click.Choice(["estimated"]), help="Let the performance model supply what is not measured.")
@click.option(
    "--gap", type=click.FloatRange(0, 1, max_open=True), help="Relative gap to prove [default: 1e-6, large: 1e-3]."
)
@click.option("--time-limit", "time_limit_s", type=click.FloatRange(0, min_open=True), help="Seconds a solve may take.")
@click.option("--explain", is_flag=True, help="Add what caps are worth, break-even prices and the next-best fleets.")
@click.option(
    "--routing",
    type=click.Choice(["by-size", "input-only"]),
    default="by-size",
    show_default=True,
    help="input-only: shares that a router can follow without knowing output lengths.",
)
@output_option(*OUTPUTS)
@click.option("--plan", "plan_file", type=click.Path(dir_okay=False), help="Also write the plan to this file.")
@click.pass_context
def solve(ctx: click.Context, /, **given: Any) -> None:
    """Find the cheapest fleet for WORKLOAD.

    WORKLOAD is a workload.yaml, the name of a shipped one (arena-120ms), or a config.json of the original Mélange
    release.

    \b
    Examples:
      melange solve arena-120ms --rate 16
      melange solve workload.yaml --max L4=3 --headroom 0.1 --explain
      melange solve workload.yaml --price-set 2026-11 --provider aws --spot -o json --plan plan.json
    """
    from melange.plan import write_plan
    from melange.report.plans import render_plan

    plan = _answer(given)
    if given["plan_file"]:
        write_plan(given["plan_file"], plan)
    click.echo(render_plan(plan, given["output"]))
    if plan.status == "infeasible":
        click.echo("melange: no fleet serves the workload within its limits: " + "; ".join(plan.reasons), err=True)
        ctx.exit(3)
    if not plan.solved:
        click.echo("melange: the time limit passed before any fleet was found; raise --time-limit", err=True)
        ctx.exit(4)
    if plan.status == "feasible":
        click.echo("melange: the time limit passed before the fleet was proven cheapest", err=True)
        ctx.exit(4)


def _answer(given: dict[str, Any]) -> Any:
    from melange.interop.release import is_release_config, plan_release
    from melange.offers import PriceChoice
    from melange.planner import plan_fleet
    from melange.slo import Slo
    from melange.workload_file import load_workload

    if is_release_config(given["workload"]):
        return plan_release(given["workload"], _options(Slo(), PriceChoice(), given))
    spec = load_workload(given["workload"])
    return plan_fleet(spec, _options(spec.workload.slo, spec.prices, given))


def _options(slo: Any, prices: Any, given: dict[str, Any]) -> Any:
    from melange.build import Limits
    from melange.planner import PlanOptions

    limits = Limits(
        maximum=given["maximum"],
        minimum=given["minimum"],
        only=given["only"],
        exclude=given["exclude"],
        max_cost_usd_per_hour=given["max_cost_usd_per_hour"],
    )
    kept = ("rate_rps", "slice_factor", "headroom", "fill", "gap", "time_limit_s", "explain")
    return PlanOptions(
        **{name: given[name] for name in kept},
        slo=_slo(slo, given),
        prices=_prices(prices, given),
        limits=limits,
        tie_outputs=given["routing"] == "input-only",
    )


def _slo(slo: Any, given: dict[str, Any]) -> Any:
    asked: dict[str, Any] = {}
    for name in ("tpot", "ttft"):
        if given[f"slo_{name}_ms"] is not None:
            asked[f"{name}_s"] = given[f"slo_{name}_ms"] / 1000
    asked |= {name: given[name] for name in ("tpot_definition", "attainment") if given[name] is not None}
    return replace(slo, **asked) if asked else None


def _prices(prices: Any, given: dict[str, Any]) -> Any:
    asked: dict[str, Any] = {}
    if given["price_set"]:
        asked |= {"price_set": given["price_set"], "file": None}
    if given["price_file"]:
        asked["file"] = given["price_file"]
    asked |= {name: given[name] for name in ("providers", "regions") if given[name]}
    if given["spot"] is not None:
        asked["spot"] = given["spot"]
    return replace(prices, **asked) if asked else None
