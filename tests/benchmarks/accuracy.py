"""Write the page on how accurate the performance model is, judged on what it was not fitted to.

    python tests/benchmarks/accuracy.py REFERENCE -o docs/accuracy.md

The folder with the paper's heatmaps does not ship, so this is no command of ``melange``.
"""

from __future__ import annotations

from pathlib import Path

import click
from accuracy_figures import measure_accuracy
from accuracy_page import render_accuracy
from public_page import public_errors

from melange.files.shipped import data_path
from melange.files.text import write_atomic
from melange.measurements.public import SHIPPED
from melange.perfmodel.calibration import read_calibration


@click.command()
@click.argument("reference", type=click.Path(file_okay=False))
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="Write the page to this file instead of stdout.")
@click.option("--splits", type=click.IntRange(1), default=20, show_default=True, help="Seeded splits to fit on.")
@click.option(
    "--calibration",
    "calibrations",
    multiple=True,
    type=click.Path(dir_okay=False),
    help="Also state the held-out error of this calibration.",
)
@click.option(
    "--public",
    type=click.Path(exists=True, dir_okay=False),
    default=data_path(SHIPPED),
    help="Public measurements [those that ship].",
)
def accuracy(reference: str, output: str | None, splits: int, calibrations: tuple[str, ...], public: str) -> None:
    """Judge the performance model on what it was not fitted to, and write docs/accuracy.md.

    REFERENCE is a folder with the paper's heatmaps (heatmap_a100_v_a10g.csv,
    heatmap_2xh100_v_2xa100_llama2_70b.csv).

    \b
    Examples:
      python tests/benchmarks/accuracy.py reference/melange -o docs/accuracy.md
      python tests/benchmarks/accuracy.py reference/melange --splits 5 --calibration calibration.yaml
    """
    measured = {}
    for file in calibrations:
        calibration = read_calibration(file)
        measured[f"{Path(file).name} ({calibration.label})"] = calibration
    found = measure_accuracy(
        reference, splits=splits, measured=measured, progress=lambda line: click.echo(line, err=True)
    )
    page = render_accuracy(found, public_errors(public))
    if output:
        write_atomic(output, page)
    else:
        click.echo(page, nl=False)


if __name__ == "__main__":
    accuracy()
