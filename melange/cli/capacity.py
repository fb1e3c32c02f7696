"""``melange capacity``: the highest rate that given machines carry, and the best way to use them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from melange.cli.options import jobs_options, output_option, owned, place, waiting
from melange.cli.planning import asked_spec, fleet_options, fleet_options_given
from melange.cli.slo_options import share

if TYPE_CHECKING:
    from melange.attainment.given_machines import MachineRates


@click.command()
@click.argument("file", metavar="PLAN|WORKLOAD", type=click.Path(dir_okay=False))
@click.option("--fleet", metavar="FLEET", help="The machines, such as 2xH100 + 7xL40S/fp8 or 1xH100:8.")
@click.option(
    "--own",
    "owned",
    multiple=True,
    callback=owned,
    metavar="NAME[:SIZE]=N",
    help="In place of --fleet: N GPUs of a type, in machines of SIZE, that are owned; no offer of them is needed.",
)
@fleet_options
@click.option("--program-only", is_flag=True, help="Leave the simulation out.")
@click.option("--policy", help="Routing policy, see 'melange simulate --help'  [default: shares]")
@click.option("--arrivals", help="poisson, gamma:CV or mmpp  [default: as uneven as the workload says, else poisson]")
@click.option(
    "--requests",
    type=click.IntRange(100, 10_000_000),
    help="Requests a replication  [default: ten minutes', 5000 to 50000]",
)
@click.option("--replications", type=click.IntRange(1, 10_000), default=2, show_default=True, help="Independent runs.")
@click.option(
    "--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Seed of everything random."
)
@click.option("--resolution", callback=share, default="2%", show_default=True, help="To which rates are found.")
@jobs_options("replications")
@output_option("table", "json")
def capacity(file: str, output: str, **given: Any) -> None:
    """Find the highest rate that given machines carry of a workload's mix of sizes.

    WORKLOAD with --fleet, or with machines that it owns (fleet: {H100: {owned: 8}}, or --own): a row for each
    tensor-parallel degree and their best mix, at the precision that the workload leaves open and at others, by the
    program (whole replicas, every size in time) and by simulation: the highest rate at which the SLO's share of the
    requests (99% where it states none) keeps it. PLAN: its own replicas and shares, as they stand.

    \b
    Examples:
      melange capacity workload.yaml --fleet 1xH100:8
      melange capacity azure-conversation --own L40S=2 --slo-ttft-ms 500 --attainment 0.99
      melange capacity plan.json -o json
    """
    from melange.report.capacity import render_capacity

    click.echo(render_capacity(_rates(file, given), output))


def _rates(file: str, given: dict[str, Any]) -> MachineRates:
    from melange.attainment.given_machines import capacity_of, capacity_of_plan
    from melange.plan.file import read_plan
    from melange.planning.workload_file import load_workload
    from melange.routing import DEFAULT_POLICY, policy_by_name
    from melange.simulator.arrivals import Process
    from melange.simulator.simulate import SimulationOptions

    jobs, where = place(given)
    options = SimulationOptions(
        **{name: given[name] for name in ("requests", "replications", "seed")},
        process=Process.parse(given["arrivals"]) if given["arrivals"] else None,
        policy=policy_by_name(given["policy"] or DEFAULT_POLICY),
        jobs=jobs,
    )
    how: dict[str, Any] = {
        "resolution": given["resolution"],
        "simulated": not given["program_only"],
        "on_progress": lambda line: click.echo(line, err=True),
    }
    if given["fleet"] is not None and given["owned"]:
        raise click.UsageError("give either --fleet or --own")
    if file.endswith(".json"):
        if given["fleet"] is not None or given["owned"]:
            raise click.UsageError("--fleet and --own take a workload; a plan has its own fleet")
        for flag in fleet_options_given(given):
            raise click.UsageError(f"{flag} goes with a workload; a plan states its own")
        with where, waiting(f"looking for what {file} carries"):
            return capacity_of_plan(read_plan(file), options, **how)
    spec = asked_spec(load_workload(file), given, tpot_ms=given["slo_tpot_ms"])
    with where, waiting(f"looking for what the machines carry of {spec.workload.name}"):
        return capacity_of(spec, given["fleet"], options, **how)
