"""``melange calibrate``: fit the performance model to load points."""

from __future__ import annotations

from typing import Any

import click

from melange.cli.options import names, waiting, warning
from melange.cli.outputs import OutputOption

_SETTINGS = ("max_num_seqs", "max_batched_tokens", "memory_fraction", "max_model_len_tokens", "chunked_prefill")


@click.command()
@click.argument("measurements", nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    "file",
    cls=OutputOption,
    type=click.Path(dir_okay=False),
    required=True,
    help="Calibration file to write.",
)
@click.option("--gpu", "gpus", multiple=True, callback=names, metavar="NAMES", help="Only points of these GPUs.")
@click.option("--max-input-tokens", type=float, help="Only points of at most so many input tokens.")
@click.option("--gpu-file", type=click.Path(dir_okay=False), help="YAML of GPUs given by figures, as in the catalog.")
@click.option("--model-config", "model_configs", multiple=True, type=click.Path(dir_okay=False), help="A config.json.")
@click.option(
    "--max-num-seqs",
    type=click.IntRange(1, 10**9),
    help="The measured engine's limit on sequences [as its header says, else by version and GPU].",
)
@click.option("--max-batched-tokens", type=click.IntRange(1, 10**9), help="Its limit on tokens in an iteration.")
@click.option("--memory-fraction", type=click.FloatRange(0, 1, min_open=True), help="Its share of GPU memory.")
@click.option(
    "--max-model-len", "max_model_len_tokens", type=click.IntRange(1, 10**9), help="Its longest request in tokens."
)
@click.option("--chunked-prefill/--no-chunked-prefill", default=None, help="Whether it mixes prompts with decodes.")
@click.option(
    "--folds", type=click.IntRange(2, 1000), default=5, show_default=True, help="Folds of the held-out error."
)
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Seed of the folds.")
@click.option("--format", "shown", type=click.Choice(["table", "json"]), default="table", help="What to show [table].")
def calibrate(measurements: tuple[str, ...], file: str, shown: str, **given: Any) -> None:
    """Fit the performance model's efficiencies to MEASUREMENTS: files of load points, or shipped sets of them.

    What the points cannot identify stays at its prior. Throughputs without latencies give a calibration that is
    labelled throughput-only.

    \b
    Examples:
      melange calibrate measurements.jsonl -o calibration.yaml
      melange calibrate melange-2024/llama-2-7b -o calibration.yaml
      melange calibrate melange-2024/llama-2-7b --gpu A10G,A100-80GB --max-input-tokens 2000 -o half.yaml
    """
    from melange.catalog.described import extended_catalog
    from melange.catalog.hardware import load_catalog
    from melange.measurements.curve import told_settings
    from melange.perfmodel import calibrate as module
    from melange.perfmodel.calibration import write_calibration
    from melange.report.estimates import render_calibration

    catalog = extended_catalog(load_catalog(), [given["gpu_file"]] if given["gpu_file"] else [], given["model_configs"])
    wanted = {catalog.gpu(name).name for name in given["gpus"]}
    files = module.read_sets(measurements)
    for doubt in (text for file in files for text in file.warnings):
        warning(doubt)
    points = [
        point
        for each in files
        for point in module.points_of(each)
        if (not wanted or catalog.gpu(point.gpu).name in wanted)
        and (given["max_input_tokens"] is None or point.input_tokens <= given["max_input_tokens"])
    ]
    with waiting(f"fitting {len(points)} measurements"):
        result = module.calibrate(
            points,
            name=", ".join(measurements),
            catalog=catalog,
            settings=_settings(given, points, catalog, told_settings(files, catalog)),
            folds=given["folds"],
            seed=given["seed"],
            provenance={
                "measurements": list(measurements),
                "gpus": sorted({point.gpu for point in points}),
                "models": sorted({point.model for point in points}),
                "engine_versions": sorted({point.engine_version or "unknown" for point in points}),
                "max_input_tokens": given["max_input_tokens"],
                "seed": given["seed"],
            },
        )
    write_calibration(file, result)
    click.echo(render_calibration(result, shown))


def _settings(given: dict[str, Any], points: Any, catalog: Any, told: Any) -> Any:
    """What the headers tell of each engine; where the user says something, the first point's engine with that."""
    from dataclasses import replace

    from melange.serving.engine_settings import default_settings

    said = {name: given[name] for name in _SETTINGS if given[name] is not None}
    if not said or not points:
        return told
    first = points[0]
    usual = told.get(first.key) or default_settings(catalog.gpu(first.gpu), first.engine, first.engine_version)
    return replace(usual, **said)
