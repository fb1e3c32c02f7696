"""``melange workload``: workload files from request traces and from a server's metrics."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from melange.cli.slo_options import slo_of
from melange.cli.workload_metrics import from_metrics
from melange.cli.workload_options import choice_options, grid_of, hand_out, shape_options, spec_of
from melange.cli.workload_show import show

if TYPE_CHECKING:
    from melange.workload.windows import WindowRule

SHOW_PROGRESS_FROM_BYTES = 64 << 20


def _columns(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str] | None:
    """``("input=a,output=b",)`` -> ``{"input": "a", "output": "b"}``."""
    columns: dict[str, str] = {}
    for pair in (part for value in values for part in value.split(",")):
        role, equals, name = (text.strip() for text in pair.partition("="))
        if not (role and equals and name):
            raise click.BadParameter(f"{pair!r} is not ROLE=COLUMN, for example input=prompt_tokens", ctx, param)
        if role in columns:
            raise click.BadParameter(f"{role} is given twice", ctx, param)
        columns[role] = name
    return columns or None


def _window(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[float, float] | None:
    """``"600:"`` -> ``(600.0, inf)``."""
    if value is None:
        return None
    start, colon, end = value.partition(":")
    try:
        if not colon or value.strip() == ":":
            raise ValueError
        return float(start) if start.strip() else -math.inf, float(end) if end.strip() else math.inf
    except ValueError:
        raise click.BadParameter(f"{value!r} is not START:END in seconds, for example 0:3600", ctx, param) from None


def _number_or_none(ctx: click.Context, param: click.Parameter, value: str | None) -> int | str | None:
    """``"none"`` or a number of windows."""
    if value is None or value == "none":
        return value
    try:
        return int(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is neither a whole number nor none", ctx, param) from None


def _window_rule(given: dict[str, Any]) -> WindowRule | None:
    from melange.workload.windows import WindowRule

    minutes = given["window_minutes"]
    if given["windows"] is not None and minutes is not None:
        raise click.UsageError("give --windows or --window-minutes, not both")
    if given["windows"] == "none":
        return None
    return WindowRule(count=given["windows"], length_s=None if minutes is None else 60 * minutes)


@click.group()
def workload() -> None:
    """Make workload files, and show what they hold.

    \b
    Examples:
      melange workload from-trace requests.csv --rate 8 --model llama-3.1-8b -o workload.yaml
      melange workload from-metrics http://127.0.0.1:8000 --rate 12 --model llama-3.1-8b -o workload.yaml
      melange workload show azure-conversation
    """


@workload.command("from-trace")
@click.argument("file", type=click.Path())
@click.option(
    "--format",
    "format_",
    default="auto",
    show_default=True,
    metavar="NAME",
    help="Column names to expect: tokens, azure, mooncake or burstgpt; auto looks. CSV, JSONL or Parquet, plain or "
    "gzipped, is always told by the content.",
)
@click.option(
    "--columns",
    multiple=True,
    callback=_columns,
    metavar="ROLE=COLUMN,...",
    help="Which columns are which: input and output, and where there time, cached, session, hash_ids.",
)
@click.option("--time-unit", metavar="UNIT", help="Unit of the time column: s, ms, us, ns or iso.")
@click.option(
    "--block-tokens", type=click.IntRange(1), default=512, show_default=True, help="Tokens in a block of hash_ids."
)
@click.option("--rate", "rate_rps", type=float, help="Kept requests per second [default: as the arrival times tell].")
@click.option(
    "--window", callback=_window, metavar="START:END", help="Only arrivals in these seconds after the first row."
)
@click.option(
    "--windows",
    callback=_number_or_none,
    metavar="N|none",
    help="Cut the trace into N windows of equal length  [default: 1,000 kept requests each, at most 168 windows]",
)
@click.option(
    "--window-minutes", type=click.FloatRange(0, min_open=True), help="Cut it into windows of this length instead."
)
@shape_options
@click.option("--name", help="The workload's name [default: the file's].")
@click.option(
    "--representative",
    type=click.Choice(["mean", "upper_edge"]),
    default="mean",
    show_default=True,
    help="Take a bucket's load at its mean sizes, or at its upper edge as the paper does.",
)
@choice_options
def from_trace(file: str, **given: Any) -> None:
    """Count the requests of the trace FILE into size buckets and write a workload file.

    FILE may also be a scrape of vLLM's /metrics; input and output sizes are then taken as independent. Requests with
    zero tokens or above the last edges are dropped, and said so on standard error. Where the trace has times the
    file also keeps its windows: how many requests of each size came when ('melange workload show').

    \b
    Examples:
      melange workload from-trace requests.csv --rate 8 --model llama-3.1-8b -o workload.yaml
      melange workload from-trace azure.csv.gz --window 0:1800 --max-input 8000 --model llama-3.1-8b
          --slo-tpot-ms 50 --tpot-definition decode -o workload.yaml
      melange workload from-trace requests.csv --model ./my-model/config.json -o workload.yaml
      melange workload from-trace log.parquet --columns input=prompt_len,output=gen_len,time=at --time-unit ms
          --model llama-3.1-8b
    """
    from melange.workload.histogram import workload_from_trace

    reading = ("columns", "time_unit", "block_tokens", "rate_rps", "name", "model", "representative")
    result, report = workload_from_trace(
        file,
        grid=grid_of(given),
        slo=slo_of(given),
        window_s=given["window"],
        format=given["format_"],
        windows=_window_rule(given),
        on_progress=_progress(),
        **{name: given[name] for name in reading},
    )
    comment = f"From {Path(file).name} by 'melange workload from-trace'."
    hand_out(spec_of(result, given), report, comment, given["output"])


def _progress() -> Callable[[int, int], None] | None:
    """A line on a terminal's standard error that tells how far a long file is read; None elsewhere."""
    if not sys.stderr.isatty():
        return None
    shown = -1

    def show(done: int, total: int) -> None:
        nonlocal shown
        percent = 100 * done // total
        if total >= SHOW_PROGRESS_FROM_BYTES and percent > shown:
            shown = percent
            click.echo(f"\rreading: {percent}%" + ("\n" if done == total else ""), nl=False, err=True)

    return show


workload.add_command(from_metrics)
workload.add_command(show)
