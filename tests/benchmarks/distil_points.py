"""Make profiles/public/serving-points.csv from a file of public measurements as collected.

    python tests/benchmarks/distil_points.py serving_points.csv -o profiles/public/serving-points.csv

Kept are facts: who measured what on what under which load, and the figures. Names become the catalog's; of notes, the
kind of load, the number of requests, the engine's arguments that shape its iterations, and whether latencies are
medians. Left out are rows that the performance model has no words for, with the reasons said: speculative decoding,
data-parallel attention, several machines. Left empty is a TPOT that throughput contradicts (chunks of several tokens).
"""

from __future__ import annotations

import click
from public_points import read_points

from melange.files.text import write_atomic
from melange.measurements.public import points_text


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.option("-o", "--output", required=True, help="File to write.")
def main(file: str, output: str) -> None:
    """Distil the measurements of FILE."""
    points, left = read_points(file)
    write_atomic(output, points_text([point.public for point in points]))
    reasons = ", ".join(f"{count} {why}" for why, count in left.items()) or "none"
    click.echo(f"{len(points)} points; left out: {reasons}", err=True)


if __name__ == "__main__":
    main()
