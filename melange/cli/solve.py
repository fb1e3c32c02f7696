"""``melange solve``: the cheapest fleet for a workload."""

from __future__ import annotations

from typing import Any

import click

from melange.cli.options import OUTPUTS, output_option, progress_bar
from melange.cli.planning import plan_options, planning_options


@click.command()
@click.argument("workload")
@click.option("--rate", "rate_rps", type=float, help="Requests per second, in place of the file's.")
@click.option("--slo-tpot-ms", type=float, help="TPOT limit in ms, in place of the file's.")
@planning_options
@click.option("--explain", is_flag=True, help="Add what caps are worth, break-even prices and the next-best fleets.")
@click.option(
    "--uncertainty",
    "draws",
    type=click.IntRange(10),
    metavar="N",
    help="Draw rates and demand N times and judge fleets by their regret.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of everything drawn at random.")
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
      melange solve arena-120ms --uncertainty 200
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

    asked = {"rate_rps": given["rate_rps"], "tpot_ms": given["slo_tpot_ms"]}
    if is_release_config(given["workload"]):
        if given["draws"] is not None:
            raise click.UsageError("--uncertainty needs a workload file: a config.json states no spread of its figures")
        return plan_release(given["workload"], plan_options(Slo(), PriceChoice(), given, **asked))
    spec = load_workload(given["workload"])
    options = plan_options(spec.workload.slo, spec.prices, given, **asked)
    if given["draws"] is None:
        return plan_fleet(spec, options)
    from melange.uncertainty import solve_with_uncertainty

    with progress_bar("drawing rates and demand") as tell:
        return solve_with_uncertainty(spec, options, draws=given["draws"], seed=given["seed"], progress=tell)
