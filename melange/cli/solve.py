"""``melange solve``: the cheapest fleet for a workload."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from melange.cli.options import OUTPUTS, jobs_options, output_option, place, progress_bar, waiting
from melange.cli.outputs import OutputOption, refuse_input
from melange.cli.planning import asked_spec, planning_options, rate_or_statistic, release_plan, solve_options
from melange.cli.slo_options import share, tpot_limit_option

if TYPE_CHECKING:
    from melange.plan.plan import Plan
    from melange.planning.options import SolveOptions
    from melange.planning.spec import WorkloadSpec


OWN = "own"
"""What --attain alone asks for: the SLO's own promise."""


def _promise(ctx: click.Context, param: click.Parameter, value: str | None) -> float | str | None:
    """A share, OWN, or None where nothing is asked."""
    return OWN if value == OWN else share(ctx, param, value)


@click.command()
@click.argument("workload")
@click.option(
    "--rate",
    callback=rate_or_statistic,
    metavar="R|mean|peak|p95",
    help="Requests per second, in place of the file's; or which load (GPU time, not requests) of its windows to plan "
    "for.",
)
@tpot_limit_option
@planning_options
@click.option("--explain", is_flag=True, help="Add what caps are worth, break-even prices and the next-best fleets.")
@click.option(
    "--uncertainty",
    "draws",
    type=click.IntRange(10, 100_000),
    metavar="N",
    help="Draw rates and demand N times and judge fleets by their regret.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**63 - 1),
    help="With --uncertainty or --attain: seed of what is drawn  [default: 0]",
)
@click.option(
    "--nano-batching", is_flag=True, help="Let engines overlap nano-batches (predicted) and say what changes."
)
@click.option(
    "--attain",
    is_flag=False,
    flag_value=OWN,
    callback=_promise,
    metavar="[SHARE]",
    help="Find the cheapest fleet that keeps the promise in simulation: for this share of requests, 0.99 or 99%, or, "
    "alone at the end, for the share or the percentiles that the SLO states.",
)
@click.option("--trace", "trace_file", type=click.Path(dir_okay=False), help="With --attain: a trace that gives sizes.")
@click.option(
    "--arrivals",
    help="With --attain: poisson, gamma:CV, mmpp, or trace (the requests of --trace in order, scaled to the rate)  "
    "[default: gamma with the workload's burstiness_cv, else poisson]",
)
@click.option(
    "--stands",
    type=click.IntRange(0),
    metavar="N",
    help="With --attain: replications behind each figure of what the promise stands, 0 for none of it  [default: 4]",
)
@click.option("--policy", help="With --attain: routing policy, see 'melange simulate --help'  [default: shares]")
@click.option(
    "--requests", type=click.IntRange(100, 10_000_000), help="With --attain: a replication's [default: 5000 or 600 s]"
)
@jobs_options("replications and fleets of --attain, draws of --uncertainty")
@output_option(*OUTPUTS)
@click.option(
    "--plan", "plan_file", cls=OutputOption, type=click.Path(dir_okay=False), help="Also write the plan to this file."
)
@click.pass_context
def solve(ctx: click.Context, /, **given: Any) -> None:
    """Find the cheapest fleet for WORKLOAD.

    WORKLOAD is a workload.yaml, the name of a shipped one (arena-120ms), or a config.json of the original Mélange
    release.

    \b
    Examples:
      melange solve arena-120ms --rate 16
      melange solve azure-conversation --rate p95 --margin 15%
      melange solve azure-conversation --for-every-window
      melange solve workload.yaml --max L4=3 --headroom 0.1 --explain
      melange solve azure-conversation --precision fp8 --tp 1,2
      melange solve azure-conversation --precision any --kv-dtype auto,fp8 --batched-tokens 2048,8192
      melange solve arena-120ms --uncertainty 200
      melange solve arena-120ms-mean --attain 0.99
      melange solve azure-code --slo-ttft-ms p95=1000 --slo-tpot-ms p95=50 --attain
      melange solve workload.yaml --attain 0.99 --trace requests.csv --arrivals trace
      melange solve workload.yaml --price-set 2026-11 --provider aws --spot -o json --plan plan.json
    """
    from melange.plan.file import write_plan
    from melange.report.plans import render_plan
    from melange.solver.problem import Status

    plan = _answer(given)
    if given["plan_file"]:
        write_plan(given["plan_file"], plan)
    click.echo(render_plan(plan, given["output"], reasons=False))  # they are said once, on stderr
    if plan.status == Status.INFEASIBLE:
        click.echo("melange: no fleet serves the workload within its limits: " + "; ".join(plan.reasons), err=True)
        ctx.exit(3)
    if not plan.solved:
        click.echo("melange: the time limit passed before any fleet was found; raise --time-limit", err=True)
        ctx.exit(4)
    if plan.attain is not None:
        if not plan.attain.complete:
            click.echo("melange: the search ended before every cheaper fleet was ruled out", err=True)
            ctx.exit(4)
    elif plan.status == Status.FEASIBLE:
        click.echo("melange: the time limit passed before the fleet was proven cheapest", err=True)
        ctx.exit(4)


def _answer(given: dict[str, Any]) -> Plan:
    from melange.interop.release import is_release_config
    from melange.planning.advice import with_precision_advice
    from melange.planning.planner import plan_fleet
    from melange.planning.workload_file import load_workload

    statistic = given["rate"] if isinstance(given["rate"], str) else None
    asked = {"rate_rps": None if statistic else given["rate"], "tpot_ms": given["slo_tpot_ms"]}
    _check_combination(given)
    if is_release_config(given["workload"]):
        for flag, name in (("--uncertainty", "draws"), ("--attain", "attain"), ("--nano-batching", "nano_batching")):
            if given[name]:
                raise click.UsageError(f"{flag} needs a workload file: a config.json states no sizes")
        if statistic or given["margin"]:
            raise click.UsageError("--margin and a statistic as --rate need a workload file; use --headroom")
        return release_plan(given["workload"], given, **asked)
    spec = asked_spec(load_workload(given["workload"]), given, **asked, statistic=statistic)
    refuse_input(given["plan_file"], *spec.profiles.files, spec.prices.file, spec.model_file)
    options = solve_options(given)
    if given["attain"] is not None:
        return _attained(spec, options, given)
    if given["nano_batching"]:
        from melange.analysis.nanobatching import compare_nanobatching

        with waiting(f"solving {spec.workload.name}"):
            return compare_nanobatching(spec, options).plan
    if given["draws"] is None:
        with waiting(f"solving {spec.workload.name}"):
            return with_precision_advice(plan_fleet(spec, options), spec, options)
    from melange.analysis.uncertainty import solve_with_uncertainty

    jobs, where = place(given)
    with where, progress_bar("drawing rates and demand") as tell:
        return solve_with_uncertainty(
            spec, options, draws=given["draws"], seed=given["seed"] or 0, jobs=jobs, progress=tell
        )


def _check_combination(given: dict[str, Any]) -> None:
    if given["attain"] is None:
        for name in ("trace_file", "arrivals", "policy", "requests", "stands"):
            if given[name] is not None:
                raise click.UsageError(f"--{name.removesuffix('_file')} goes with --attain")
        for name in ("seed", "jobs", "on"):
            if given[name] is not None and given["draws"] is None:
                raise click.UsageError(f"--{name} goes with --attain or --uncertainty")
    elif given["draws"] or given["explain"] or given["slice_factor"] or given["nano_batching"]:
        raise click.UsageError(
            "--attain stands alone: leave --uncertainty, --explain, --slice-factor and --nano-batching out"
        )
    if given["trace_file"] and (given["every_window"] or given["window_share"] is not None):
        raise click.UsageError("--trace gives sizes, and windows have their own: leave one of them out")
    if given["arrivals"] == "trace" and not given["trace_file"]:
        raise click.UsageError("--arrivals trace needs --trace: the file whose requests are replayed")
    if given["nano_batching"] and given["draws"]:
        raise click.UsageError("give either --uncertainty or --nano-batching")


def _attained(spec: WorkloadSpec, options: SolveOptions, given: dict[str, Any]) -> Plan:
    from dataclasses import replace

    from melange.attainment.closed_loop import attain
    from melange.errors import InfeasibleError
    from melange.planning.assemble import plan_without_fleet
    from melange.planning.planner import choices_of
    from melange.routing import DEFAULT_POLICY, policy_by_name
    from melange.simulator.arrivals import Process
    from melange.simulator.simulate import SimulationOptions
    from melange.traces import read_trace

    jobs, where = place(given)
    simulation = SimulationOptions(
        requests=given["requests"],
        seed=given["seed"] or 0,
        process=Process.parse(given["arrivals"]) if given["arrivals"] else None,
        policy=policy_by_name(given["policy"] or DEFAULT_POLICY),
        jobs=jobs,
    )
    trace = read_trace(given["trace_file"]) if given["trace_file"] else None
    with where, waiting(f"searching for the fleet of {spec.workload.name}"):
        try:
            plan, _ = attain(
                spec,
                None if given["attain"] == OWN else given["attain"],
                options,
                simulation,
                trace=trace,
                **({} if given["stands"] is None else {"standing": given["stands"]}),
                on_progress=lambda line: click.echo(line, err=True),
            )
        except InfeasibleError as error:
            # An answer as any other: stdout holds a plan without a fleet, stderr the reason.
            return replace(plan_without_fleet(choices_of(spec, options)), reasons=(str(error),))
    return plan
