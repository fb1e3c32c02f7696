"""``melange workload``: workload files from request traces."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

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


def _edges(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """``"25,100"`` -> ``(25, 100)``."""
    if value is None:
        return None
    try:
        return tuple(int(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a list of whole numbers such as 25,100,250", ctx, param) from None


@click.group()
def workload() -> None:
    """Make workload files.

    \b
    Examples:
      melange workload from-trace requests.csv --rate 8 --model llama-3.1-8b -o workload.yaml
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
@click.option("--input-edges", callback=_edges, metavar="N,N,...", help="Input bucket edges [default: the paper's].")
@click.option("--output-edges", callback=_edges, metavar="N,N,...", help="Output bucket edges [default: the paper's].")
@click.option("--max-input", type=click.IntRange(1), help="End the input edges here; longer requests are dropped.")
@click.option("--max-output", type=click.IntRange(1), help="End the output edges here; longer requests are dropped.")
@click.option("--slo-tpot-ms", type=float, help="TPOT limit in ms; needs --tpot-definition.")
@click.option(
    "--tpot-definition",
    type=click.Choice(["decode", "e2e_per_token"]),
    help="Which TPOT: (latency - TTFT) / (tokens - 1), or latency / tokens.",
)
@click.option("--slo-ttft-ms", type=float, help="TTFT limit in ms.")
@click.option("--slo-e2e-ms", type=float, help="Limit of the whole latency in ms.")
@click.option("--attainment", type=float, help="Share of requests that must keep the SLO [default: its mean must].")
@click.option("--model", help="The model that serves it (see 'melange gpus --models'); solving needs it or --profiles.")
@click.option("--name", help="The workload's name [default: the file's].")
@click.option(
    "--representative",
    type=click.Choice(["mean", "upper_edge"]),
    default="mean",
    show_default=True,
    help="Take a bucket's load at its mean sizes, or at its upper edge as the paper does.",
)
@click.option("--profiles", metavar="SET", help="Profile set [default: estimated/MODEL].")
@click.option("--assume-slo", is_flag=True, help="Take capacities measured without an SLO for the workload's.")
@click.option("--assume-slo-reason", help="Why that is sound, kept in the file.")
@click.option("--prices", "price_set", help="Price set (see 'melange gpus').")
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="File to write [default: standard output].")
def from_trace(file: str, **given: Any) -> None:
    """Count the requests of the trace FILE into size buckets and write a workload file.

    FILE may also be a scrape of vLLM's /metrics; input and output sizes are then taken as independent. Requests with
    zero tokens or above the last edges are dropped, and said so on standard error.

    \b
    Examples:
      melange workload from-trace requests.csv --rate 8 --model llama-3.1-8b -o workload.yaml
      melange workload from-trace azure.csv.gz --window 0:1800 --max-input 8000 --model llama-3.1-8b
          --slo-tpot-ms 50 --tpot-definition decode -o workload.yaml
      melange workload from-trace log.parquet --columns input=prompt_len,output=gen_len,time=at --time-unit ms
          --model llama-3.1-8b
    """
    from melange.histogram import workload_from_trace
    from melange.report.traces import render_trace_report
    from melange.workload_file import WorkloadSpec, dump_workload, write_workload

    profiles = _profiles(given)
    reading = ("columns", "time_unit", "block_tokens", "rate_rps", "name", "model", "representative")
    result, report = workload_from_trace(
        file,
        grid=_grid(given),
        slo=_slo(given),
        window_s=given["window"],
        format=given["format_"],
        on_progress=_progress(),
        **{name: given[name] for name in reading},
    )
    spec = WorkloadSpec(workload=result, profiles=profiles, **_prices(given))
    comment = f"From {Path(file).name} by 'melange workload from-trace'."
    if given["output"]:
        write_workload(given["output"], spec, comment)
    else:
        click.echo(dump_workload(spec, comment), nl=False)
    click.echo(render_trace_report(report), err=True)
    if profiles.set is None:
        click.echo("warning: the file names neither model nor profiles: add one to solve it", err=True)


def _grid(given: dict[str, Any]) -> Any:
    from melange.sizes import PAPER_INPUT_EDGES_TOKENS, PAPER_OUTPUT_EDGES_TOKENS, SizeGrid

    inputs = given["input_edges"] or PAPER_INPUT_EDGES_TOKENS
    outputs = given["output_edges"] or PAPER_OUTPUT_EDGES_TOKENS
    return SizeGrid(
        input_edges_tokens=_ended(inputs, given["max_input"]), output_edges_tokens=_ended(outputs, given["max_output"])
    )


def _ended(edges: Sequence[int], last: int | None) -> tuple[int, ...]:
    return tuple(edges) if last is None else (*(edge for edge in edges if edge < last), last)


def _slo(given: dict[str, Any]) -> Any:
    from melange.slo import Slo

    if (given["slo_tpot_ms"] is None) != (given["tpot_definition"] is None):
        raise click.UsageError("--slo-tpot-ms and --tpot-definition go together: there are two TPOTs in use")
    asked: dict[str, Any] = {
        f"{name}_s": given[f"slo_{name}_ms"] / 1000
        for name in ("tpot", "ttft", "e2e")
        if given[f"slo_{name}_ms"] is not None
    }
    if given["attainment"] is not None and not asked:
        raise click.UsageError("--attainment needs a limit to attain: --slo-tpot-ms, --slo-ttft-ms or --slo-e2e-ms")
    asked |= {name: given[name] for name in ("tpot_definition", "attainment") if given[name] is not None}
    return Slo(**asked)


def _profiles(given: dict[str, Any]) -> Any:
    from melange.workload_file import ProfileChoice

    if given["assume_slo_reason"] and not given["assume_slo"]:
        raise click.UsageError("--assume-slo-reason goes with --assume-slo")
    estimated = f"estimated/{given['model']}" if given["model"] else None
    return ProfileChoice(
        set=given["profiles"] or estimated,
        assume_slo=given["assume_slo"],
        reason=given["assume_slo_reason"],
    )


def _prices(given: dict[str, Any]) -> dict[str, Any]:
    from melange.offers import PriceChoice

    return {"prices": PriceChoice(price_set=given["price_set"])} if given["price_set"] else {}


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
