"""``melange sweep``: solve over a range of rates, SLOs or prices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from melange.cli.options import jobs_options, output_option, place, progress_bar
from melange.cli.outputs import OutputOption
from melange.cli.planning import STATISTICS, asked_spec, planning_options, solve_options
from melange.cli.slo_options import Limit

if TYPE_CHECKING:
    from melange.analysis.sweep import Sweep


MOST_POINTS = 10_000


def values(ctx: click.Context, param: click.Parameter, text: str | None) -> tuple[float, ...]:
    """``"1,2,4"`` -> those; ``"2:8:7"`` -> 7 values from 2 to 8, evenly spaced."""
    if text is None:
        return ()
    try:
        if ":" not in text:
            found = tuple(float(part) for part in text.split(","))
            if len(set(found)) < len(found):
                raise click.BadParameter(f"{text!r} names a value twice", ctx, param)
            return found
        start, stop, count = (float(part) for part in text.split(":"))
        if count != int(count) or not 2 <= count <= MOST_POINTS:
            raise ValueError
        return tuple(round(start + (stop - start) * n / (int(count) - 1), 12) for n in range(int(count)))
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"{text!r} is neither values such as 1,2,4 nor FIRST:LAST:COUNT such as 2:8:7", ctx, param
        ) from None


def gpu_values(ctx: click.Context, param: click.Parameter, text: str | None) -> tuple[str, tuple[float, ...]] | None:
    """``"H100=2:8:7"`` -> ``("H100", (2.0, ..., 8.0))``."""
    if text is None:
        return None
    name, equals, rest = text.partition("=")
    if not (name.strip() and equals):
        raise click.BadParameter(f"{text!r} is not GPU=VALUES, for example H100=2:8:7", ctx, param)
    return name.strip(), values(ctx, param, rest)


@click.command()
@click.argument("workload")
@click.option("--rates", callback=values, metavar="VALUES", help="Requests per second: 1,2,4 or FIRST:LAST:COUNT.")
@click.option("--slo-tpot-ms", callback=values, metavar="VALUES", help="TPOT limits in ms.")
@click.option("--price", callback=gpu_values, metavar="GPU=VALUES", help="Prices of a GPU, USD per hour and GPU.")
@click.option(
    "--rate",
    "statistic",
    type=click.Choice(STATISTICS),
    help="Plan for this load of the workload's windows: every rate is that of the mean and scaled.",
)
@planning_options
@jobs_options("points")
@click.option(
    "--plot", cls=OutputOption, type=click.Path(dir_okay=False), help="Also draw the curve: FILE.png, .svg or .pdf."
)
@output_option("table", "json", "csv")
@click.pass_context
def sweep(ctx: click.Context, /, **given: Any) -> None:
    """Solve WORKLOAD over rates, TPOT limits or the prices of one GPU.

    The one with several values is swept, another with a single value applies throughout. Every point has the cheapest
    fleet, each type's cost alone, and the savings against the best of them; a point without a fleet says why.

    \b
    Examples:
      melange sweep arena-120ms --rates 1,2,4,8,16,32 --plot cost-against-rate.svg
      melange sweep workload.yaml --slo-tpot-ms 40,80,120 --fill estimated -o csv
      melange sweep arena-120ms --price H100=2:8:7 --price-set 2026-11
    """
    from melange.files.text import write_atomic
    from melange.report.figures import format_of
    from melange.report.sweeps import render_sweep, sweep_figure

    plot = given["plot"]
    image_format = format_of(plot) if plot else None
    result = _swept(ctx, given)
    click.echo(render_sweep(result, given["output"]))
    if plot and image_format:
        write_atomic(plot, sweep_figure(result, image_format))
    statuses = {point.status for point in result.points}
    if not statuses & {"optimal", "feasible", "unknown"}:
        click.echo("melange: no point has a fleet", err=True)
        ctx.exit(3)
    if statuses & {"feasible", "unknown"}:
        click.echo("melange: the time limit passed before every fleet was proven cheapest", err=True)
        ctx.exit(4)


def _swept(ctx: click.Context, given: dict[str, Any]) -> Sweep:
    from melange.analysis.sweep import repriced, sweep_prices, sweep_rates, sweep_tpot
    from melange.catalog.hardware import load_catalog
    from melange.errors import InputError
    from melange.interop.release import is_release_config
    from melange.planning.workload_file import load_workload

    rates, limits_ms, price = given["rates"], given["slo_tpot_ms"], given["price"]
    axis = _axis(ctx, {"rates": rates, "slo-tpot-ms": limits_ms, "price": price[1] if price else ()})
    if is_release_config(given["workload"]):
        raise InputError(
            "a config.json of the original release can be solved, not swept",
            file=given["workload"],
            fix="use 'melange solve --rate' for each rate, or write a workload.yaml",
        )
    options = solve_options(given)
    spec = asked_spec(
        load_workload(given["workload"]),
        given,
        rate_rps=rates[0] if rates and axis != "rates" else None,
        tpot_ms=Limit(limits_ms[0]) if limits_ms and axis != "slo-tpot-ms" else None,
        statistic=given["statistic"],
    )
    if price and axis != "price":
        spec = repriced(spec, load_catalog().gpu(price[0]).name, price[1][0])
    jobs, where = place(given)
    with where, progress_bar(f"solving {spec.workload.name}") as progress:
        if axis == "rates":
            return sweep_rates(spec, rates, options, jobs=jobs, progress=progress)
        if axis == "slo-tpot-ms":
            return sweep_tpot(spec, [ms / 1000 for ms in limits_ms], options, jobs=jobs, progress=progress)
        return sweep_prices(spec, price[0], price[1], options, jobs=jobs, progress=progress)


def _axis(ctx: click.Context, axes: dict[str, tuple[float, ...]]) -> str:
    """The option to sweep over: the only one with several values, or the only one given."""
    given = [name for name, numbers in axes.items() if numbers]
    several = [name for name in given if len(axes[name]) > 1]
    if len(several) > 1:
        raise click.UsageError(f"--{several[0]} and --{several[1]} both have several values; sweep one of them", ctx)
    if not several and len(given) != 1:
        raise click.UsageError("give several values of one of --rates, --slo-tpot-ms and --price", ctx)
    return (several or given)[0]
