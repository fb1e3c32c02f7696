"""What the commands that make workload files share: options of sizes and choices, and how they are read."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from melange.cli.outputs import OutputOption
from melange.cli.slo_options import slo_options

if TYPE_CHECKING:
    from melange.planning.spec import WorkloadSpec
    from melange.traces import TraceReport
    from melange.workload.sizes import SizeGrid


def _edges(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """``"25,100"`` -> ``(25, 100)``."""
    if value is None:
        return None
    try:
        return tuple(int(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a list of whole numbers such as 25,100,250", ctx, param) from None


_GRID = (
    click.option("--input-edges", callback=_edges, metavar="N,N,...", help="Input bucket edges [default: paper]."),
    click.option("--output-edges", callback=_edges, metavar="N,N,...", help="Output bucket edges [default: paper]."),
    click.option("--max-input", type=click.IntRange(1, 10**9), help="End the input edges here; longer are dropped."),
    click.option("--max-output", type=click.IntRange(1, 10**9), help="End the output edges here; longer are dropped."),
)
_MODEL = (
    click.option(
        "--model",
        metavar="NAME|FILE",
        help="The model that serves it: a name of 'melange gpus --models', a Hugging Face id, or a config.json's path.",
    ),
)
_CHOICES = (
    click.option(
        "--profiles", metavar="SET|FILE", help="Profile set, or a file of measurements [default: estimated/MODEL]."
    ),
    click.option("--assume-slo", is_flag=True, help="Take capacities measured without an SLO for the workload's."),
    click.option("--assume-slo-reason", help="Why that is sound, kept in the file."),
    click.option("--prices", "price_set", help="Price set (see 'melange gpus')."),
    click.option(
        "-o",
        "--output",
        cls=OutputOption,
        type=click.Path(dir_okay=False),
        help="File to write [default: standard output].",
    ),
)


def shape_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of the grid, the SLO and the model."""
    return _with(_GRID, slo_options(_with(_MODEL, command)))


def choice_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of profiles, prices and the output file."""
    return _with(_CHOICES, command)


def _with(options: Sequence[Callable[..., Any]], command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(options):
        command = option(command)
    return command


def grid_of(given: dict[str, Any]) -> SizeGrid:
    """The size grid that the options ask for."""
    from melange.workload.sizes import PAPER_INPUT_EDGES_TOKENS, PAPER_OUTPUT_EDGES_TOKENS, SizeGrid

    inputs = given["input_edges"] or PAPER_INPUT_EDGES_TOKENS
    outputs = given["output_edges"] or PAPER_OUTPUT_EDGES_TOKENS
    return SizeGrid(
        input_edges_tokens=_ended(inputs, given["max_input"]), output_edges_tokens=_ended(outputs, given["max_output"])
    )


def _ended(edges: Sequence[int], last: int | None) -> tuple[int, ...]:
    return tuple(edges) if last is None else (*(edge for edge in edges if edge < last), last)


def model_of(given: dict[str, Any]) -> tuple[str | None, str | None]:
    """The model's catalog name, and its config.json, relative to the workload file, where it is given as one.

    A name that only measured profiles can know stays as it is; without profiles it is refused here, not when the file
    is solved.
    """
    from melange.catalog.hardware import load_catalog
    from melange.catalog.model_config import config_file, model_named
    from melange.errors import InputError

    if given["model"] is None:
        return None, None
    try:
        model, file = model_named(given["model"], load_catalog())
    except InputError:
        if given["profiles"] is None or config_file(given["model"]) is not None:
            raise
        return given["model"], None
    return model.name, None if file is None else os.path.relpath(file, _folder(given))


def _folder(given: dict[str, Any]) -> str:
    return os.path.dirname(os.path.abspath(given["output"] or "workload.yaml"))


def _profiles(given: dict[str, Any], model: str | None) -> Any:
    """The profiles that the options choose; a file is named relative to the workload file, as that is read."""
    from melange.planning.spec import ProfileChoice

    if given["assume_slo_reason"] and not given["assume_slo"]:
        raise click.UsageError("--assume-slo-reason goes with --assume-slo")
    chosen: str | None = given["profiles"]
    files: tuple[str, ...] = ()
    if chosen is not None and os.path.isfile(chosen):
        files, chosen = (os.path.relpath(chosen, _folder(given)),), None
    elif chosen is None and model is not None:
        chosen = f"estimated/{model}"
    return ProfileChoice(set=chosen, files=files, assume_slo=given["assume_slo"], reason=given["assume_slo_reason"])


def _prices(given: dict[str, Any]) -> dict[str, Any]:
    from melange.catalog.offers import PriceChoice

    return {"prices": PriceChoice(price_set=given["price_set"])} if given["price_set"] else {}


def spec_of(workload: Any, given: dict[str, Any]) -> WorkloadSpec:
    """A workload with the profiles and prices that the options choose."""
    from melange.planning.spec import WorkloadSpec

    model, file = model_of(given)
    return WorkloadSpec(
        workload=replace(workload, model=model), profiles=_profiles(given, model), model_file=file, **_prices(given)
    )


def hand_out(spec: WorkloadSpec, report: TraceReport, comment: str, output: str | None) -> None:
    """Write the workload file, or print it; what was read and dropped goes to standard error."""
    from melange.planning.workload_file import dump_workload, write_workload
    from melange.report.traces import render_trace_report

    if output:
        write_workload(output, spec, comment)
    else:
        click.echo(dump_workload(spec, comment), nl=False)
    click.echo(render_trace_report(report), err=True)
    if spec.profiles.set is None and not spec.profiles.files:
        click.echo("warning: the file names neither model nor profiles: add one to solve it", err=True)
