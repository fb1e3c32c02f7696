"""``melange limits``: measured throughputs beside what the hardware could do at best."""

from __future__ import annotations

import click

from melange.cli.options import output_option, warning


@click.command()
@click.argument("measurements", nargs=-1, required=True)
@click.option("--gpu-file", type=click.Path(dir_okay=False), help="YAML of GPUs given by figures, as in the catalog.")
@click.option("--model-config", "model_configs", multiple=True, type=click.Path(dir_okay=False), help="A config.json.")
@click.option("--impossible", is_flag=True, help="Only those above the optimum, which cannot be right.")
@output_option("table", "json", "csv")
def limits(
    measurements: tuple[str, ...], gpu_file: str | None, model_configs: tuple[str, ...], impossible: bool, output: str
) -> None:
    """Show each throughput in MEASUREMENTS (files or shipped sets) as a share of the physical optimum, and what binds.

    A share above 100% is a wrong measurement.

    \b
    Examples:
      melange limits melange-2024/llama-2-7b
      melange limits measurements.jsonl --impossible -o json
    """
    from melange.catalog.described import extended_catalog
    from melange.catalog.hardware import load_catalog
    from melange.perfmodel.calibrate import read_sets
    from melange.perfmodel.limits import physical_limits
    from melange.report.estimates import render_limits

    catalog = extended_catalog(load_catalog(), [gpu_file] if gpu_file else [], model_configs)
    files = read_sets(measurements)
    for doubt in (text for file in files for text in file.warnings):
        warning(doubt)
    found = physical_limits([point for file in files for point in file.points], catalog=catalog)
    shown = [limit for limit in found if limit.is_impossible or not impossible]
    click.echo(render_limits(shown, output))
    wrong = sum(limit.is_impossible for limit in found)
    if wrong:
        click.echo(f"melange: {wrong} of {len(found)} throughputs are physically impossible", err=True)
