"""``melange workload show``: a workload's windows, and how far load and mix move from one to the next."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from melange.cli.options import output_option, waiting
from melange.cli.outputs import OutputOption

if TYPE_CHECKING:
    from melange.planning.load import LoadMeasure
    from melange.planning.spec import WorkloadSpec


@click.command("show")
@click.argument("workload")
@click.option(
    "--gpu", help="Measure load as GPU time on this type alone  [default: GPU time x price, each size where cheapest]"
)
@click.option(
    "--plot", cls=OutputOption, type=click.Path(dir_okay=False), help="Also draw the windows: FILE.png, .svg or .pdf."
)
@output_option("table", "json", "csv")
def show(workload: str, gpu: str | None, plot: str | None, output: str) -> None:
    """Show the windows of WORKLOAD, a workload.yaml or the name of a shipped one.

    Per window: the rate, mean sizes, the load over the mean's, and how far its mix of sizes is from the whole's (the
    total variation distance, which chance alone does not make 0). Load is GPU time x price on the cheapest
    configuration of each size; tokens where no rate is known. 'melange solve --rate p95' plans for it,
    '--for-every-window' for each window's own mix.

    \b
    Examples:
      melange workload show azure-conversation
      melange workload show workload.yaml --gpu H100 --plot windows.svg
      melange workload show workload.yaml -o csv
    """
    from melange.files.text import write_atomic
    from melange.planning.workload_file import load_workload
    from melange.report.figures import format_of
    from melange.report.windows import drift_figure, render_drift
    from melange.workload.drift import drift_of

    image = format_of(plot) if plot else None
    spec = load_workload(workload)
    with waiting(f"measuring the load of {spec.workload.name}"):
        measure = _measure(spec, gpu)
    drift = drift_of(spec.workload, measure.weight)
    click.echo(render_drift(spec.workload, drift, measure.text, output))
    if plot and image:
        write_atomic(plot, drift_figure(spec.workload, drift, measure.text, image))


def _measure(spec: WorkloadSpec, gpu: str | None) -> LoadMeasure:
    """The load measure asked for; by tokens, and said so, where the workload's rates cannot be had."""
    from melange.errors import InputError
    from melange.planning.load import load_measure, token_measure

    try:
        return load_measure(spec, gpu=gpu)
    except InputError as error:
        if gpu is not None:
            raise
        click.echo(f"warning: load is measured by tokens, as no rates are known: {error}", err=True)
        return token_measure(spec.workload)
