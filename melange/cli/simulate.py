"""``melange simulate``: what share of requests a planned fleet serves within its SLO, and why the others miss it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from melange.cli.options import jobs_options, names, output_option, place, waiting
from melange.cli.outputs import OutputOption, refuse_input
from melange.cli.planning import asked_spec, fleet_options, fleet_options_given

if TYPE_CHECKING:
    from melange.plan.plan import Plan
    from melange.simulator.report import SimulationReport
    from melange.simulator.simulate import SimulationOptions
    from melange.traces import Trace


@click.command()
@click.argument("plan_file", metavar="PLAN|WORKLOAD", type=click.Path(dir_okay=False))
@click.option(
    "--fleet",
    metavar="FLEET",
    help="Play WORKLOAD on these machines, such as 2xH100 + 7xL40S/fp8 (see below), whatever a plan would rent.",
)
@click.option("--trace", "trace_file", type=click.Path(dir_okay=False), help="Trace that gives sizes, and times.")
@click.option(
    "--arrivals",
    help="trace (its own times, scaled to the rate), poisson, gamma:CV or mmpp, see below  [default: what the trace or "
    "the workload says]",
)
@click.option(
    "--rate", "rate_rps", type=float, help="Requests per second; a trace's times are scaled  [default: the plan's]"
)
@click.option(
    "--requests",
    type=click.IntRange(1, 10_000_000),
    help="Requests a replication  [default: 10000 or ten minutes, or the replayed trace's]",
)
@click.option("--replications", type=click.IntRange(1, 10_000), default=5, show_default=True, help="Independent runs.")
@click.option(
    "--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Seed of everything random."
)
@click.option("--policy", help="Routing policy, see below  [default: shares]")
@click.option("--predictor-accuracy", type=click.FloatRange(0, 1), help="Accuracy of a 'predictor' that names none.")
@click.option("--compare-policies", is_flag=True, help="Compare all policies over the same requests.")
@click.option("--policies", multiple=True, callback=names, metavar="NAMES", help="Which policies to compare.")
@click.option(
    "--fail",
    "failures",
    multiple=True,
    metavar="RULE",
    help="L4@600+120: an L4 fails at 600 s for 120 s; L4~0.5+300: each L4 fails 0.5 times an hour for 300 s; '*' and "
    "'spot' stand for all configs and those on spot instances; without '+', for good.",
)
@click.option(
    "--warmup", "warmup_share", type=click.FloatRange(0, 1, max_open=True), default=0.1, show_default=True,
    help="Share of the requests that come first and are not counted.",
)  # fmt: skip
@click.option("--bucket-means", is_flag=True, help="Without a trace: every request has its bucket's mean size.")
@click.option("--additivity", "test_additivity", is_flag=True, help="Test per config whether loads of sizes add up.")
@click.option("--unknown-lengths", is_flag=True, help="Report the price of not knowing output lengths.")
@jobs_options("replications")
@click.option("--plot", "plot_folder", type=click.Path(file_okay=False), help="Write SVG and PNG plots to a folder.")
@fleet_options
@click.option(
    "--plan",
    "write_to",
    cls=OutputOption,
    type=click.Path(dir_okay=False),
    help="With --fleet: also write its plan to a file.",
)
@output_option("table", "json")
def simulate(plan_file: str, output: str, **given: Any) -> None:
    """Play requests through the fleet of PLAN (a plan.json), or of --fleet for a WORKLOAD, and report what users see.

    A fleet is written as plans print it: machines by GPU or instance name, H100:8 for one of eight, counts before an x,
    and what their replicas run after slashes: tp4, fp8, kv-fp8, bt2048. What is not named is the best of what the
    workload leaves open; replicas and shares are those with the most slack. No limit of the workload is looked at. The
    options of SLO, prices and serving go with --fleet; a plan states its own.

    A policy is a dispatch and, after a colon, an estimate of the unknown output length. Dispatches: shares (the plan's
    mix as priorities, passing over configs under pressure), paper (the Mélange paper's), random, round-robin,
    least-tokens, power-of-two and least-pressure over the whole fleet, and shares/random, shares/round-robin,
    shares/least-tokens, shares/power-of-two, which keep the mix strictly. Estimates: input-only, paper,
    predictor=ACCURACY, oracle.

    Arrivals are a trace's own times if it has any. Else they are drawn: where the workload states burstiness_cv, the
    coefficient of variation of inter-arrival times in its trace, from a gamma process as uneven as that, else from a
    Poisson process. mmpp switches between two rates, one three times the other, staying a minute in each on average.

    \b
    Examples:
      melange simulate plan.json
      melange simulate plan.json --trace requests.csv --rate 12 --plot plots
      melange simulate plan.json --trace requests.csv --arrivals gamma:2 --requests 20000
      melange simulate plan.json --policy shares:predictor=0.8 --fail 'spot~0.2+180' -o json
      melange simulate plan.json --compare-policies
      melange simulate azure-conversation --fleet "2xH100 + 7xL40S/fp8" --rate 100
      melange simulate workload.yaml --fleet 1xH100:8/tp4/fp8 --slo-ttft-ms 500 --plan plan.json
    """
    from melange.routing.compiled import IS_COMPILED
    from melange.traces import read_trace

    if given["plot_folder"]:
        _check_plots(given)
    options = _options(given)
    if not IS_COMPILED:
        click.echo("melange: running uncompiled, which takes some 150 times as long: pip install numba", err=True)
    report = None
    with place(given)[1], waiting(f"simulating {plan_file}"):
        plan = _plan(plan_file, given)
        trace = read_trace(given["trace_file"]) if given["trace_file"] else None
        if given["test_additivity"]:
            answer = _additivity(plan, options, output)
        elif given["unknown_lengths"]:
            answer = _lengths(plan, trace, options, output)
        elif given["compare_policies"] or given["policies"]:
            answer = _comparison(plan, trace, options, given, output)
        else:
            answer, report = _simulation(plan, trace, options, output)
    click.echo(answer)
    if report is not None and given["plot_folder"]:
        _plots(report, given["plot_folder"])


def _plan(file: str, given: dict[str, Any]) -> Plan:
    """The plan of a file, or of the fleet that a workload is to be played on."""
    from melange.plan.file import read_plan, write_plan

    if given["fleet"] is None:
        for name in fleet_options_given(given):
            raise click.UsageError(f"{name} goes with --fleet and a workload; a plan states its own")
        if given["write_to"]:
            raise click.UsageError("--plan goes with --fleet")
        if (not file.endswith(".json") and not os.path.exists(file)) or file.endswith((".yaml", ".yml")):
            raise click.UsageError(f"{file} is not a plan.json; a workload takes --fleet, such as --fleet 2xH100")
        return read_plan(file)
    from melange.attainment.asked_fleet import asked_fleet
    from melange.planning.fleet_notation import parse_fleet
    from melange.planning.workload_file import load_workload

    if file.endswith(".json"):
        raise click.UsageError("--fleet takes a workload; a plan has its own fleet")
    parts = parse_fleet(given["fleet"])
    spec = asked_spec(load_workload(file), given, rate_rps=given["rate_rps"], tpot_ms=given["slo_tpot_ms"])
    refuse_input(given["write_to"], *spec.profiles.files, spec.prices.file, spec.model_file)
    plan = asked_fleet(spec, parts).plan()
    if given["write_to"]:
        write_plan(given["write_to"], plan)
    return plan


def _options(given: dict[str, Any]) -> SimulationOptions:
    from melange.routing import DEFAULT_POLICY, policy_by_name
    from melange.simulator.arrivals import Process
    from melange.simulator.failures import FailureRule
    from melange.simulator.simulate import SimulationOptions

    kept = ("rate_rps", "requests", "replications", "seed", "warmup_share")
    return SimulationOptions(
        **{name: given[name] for name in kept},
        jobs=place(given)[0],
        process=Process.parse(given["arrivals"]) if given["arrivals"] else None,
        policy=policy_by_name(given["policy"] or DEFAULT_POLICY, predictor_accuracy=given["predictor_accuracy"]),
        failures=tuple(FailureRule.parse(text) for text in given["failures"]),
        spread=not given["bucket_means"],
    )


def _check_plots(given: dict[str, Any]) -> None:
    from melange.report.figures import new_figure

    for name in ("compare_policies", "policies", "test_additivity", "unknown_lengths"):
        if given[name]:
            raise click.UsageError("--plot draws one simulation: leave comparisons and tests out")
    new_figure()


def _plots(report: SimulationReport, folder: str) -> None:
    from melange.report.simulation_plots import write_plots

    for path in write_plots(report, folder):
        click.echo(f"wrote {path}", err=True)


def _simulation(
    plan: Plan, trace: Trace | None, options: SimulationOptions, output: str
) -> tuple[str, SimulationReport]:
    from melange.report.simulation import render_simulation
    from melange.simulator.simulate import simulate as play

    report = play(plan, trace, options)
    return render_simulation(report, output), report


def _comparison(plan: Plan, trace: Trace | None, options: SimulationOptions, given: dict[str, Any], output: str) -> str:
    from melange.report.simulation import render_comparison
    from melange.routing import POLICY_NAMES
    from melange.simulator.simulate import compare_policies

    wanted = given["policies"] or (*POLICY_NAMES, "shares:oracle")
    reports = compare_policies(plan, wanted, trace, options, predictor_accuracy=given["predictor_accuracy"])
    return render_comparison(reports, output)


def _additivity(plan: Plan, options: SimulationOptions, output: str) -> str:
    from melange.analysis.additivity import additivity
    from melange.report.simulation import render_additivity

    return render_additivity(additivity(plan, seed=options.seed), output)


def _lengths(plan: Plan, trace: Trace | None, options: SimulationOptions, output: str) -> str:
    from melange.report.simulation import render_length_price
    from melange.simulator.lengths import length_price

    return render_length_price(length_price(plan, trace, options), output)
