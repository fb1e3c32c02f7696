"""``melange nanoflow analyse`` and ``search``: what bounds a service, and the pipeline that overlaps its operations."""

from __future__ import annotations

from typing import Any

import click

from melange.catalog.precisions import PRECISIONS
from melange.cli.outputs import OutputOption

MODEL = click.option("--model", metavar="NAME", help="Model of the catalog (see 'melange gpus --models').")
GPU = click.option("--gpu", metavar="NAME", help="GPU type of the catalog (see 'melange gpus').")
TP = click.option(
    "--tp", type=click.IntRange(1, 1024), default=1, show_default=True, help="GPUs that share each layer."
)
PRECISION = click.option(
    "--precision", type=click.Choice(PRECISIONS), default="fp16", show_default=True, help="Precision of the weights."
)
INPUT = click.option(
    "--input", "input_tokens", type=float, default=1024, show_default=True, help="Mean input tokens of a request."
)
OUTPUT = click.option(
    "--output", "output_tokens", type=float, default=512, show_default=True, help="Mean output tokens of a request."
)
BATCH = click.option(
    "--batch", "batch_tokens", type=click.IntRange(1, 10**9), help="Tokens of one iteration's dense batch."
)


@click.command()
@MODEL
@GPU
@TP
@PRECISION
@INPUT
@OUTPUT
@BATCH
@click.option("--gemm-tflops", type=float, help="Achievable GEMM rate per GPU [default: known share of the peak].")
@click.option(
    "--figures",
    type=click.Choice(["catalog", "nanoflow-paper"]),
    default="catalog",
    show_default=True,
    help="Whose GPU and model figures: the catalog's, or those that the NanoFlow paper's tables assume.",
)
@click.option(
    "--format",
    "output",
    type=click.Choice(["table", "json", "csv"]),
    default="table",
    show_default=True,
    help="Output format; csv holds the operations.",
)
def analyse(model: str | None, gpu: str | None, figures: str, gemm_tflops: float | None, **given: Any) -> None:
    """Print each operation's FLOPs, bytes and network bytes, what bounds the service, and its optimal throughput.

    Without --batch the batch is the one whose KV cache fills the memory.

    \b
    Examples:
      melange nanoflow analyse --model llama-3-8b --gpu A100-80GB --input 1024 --output 512
      melange nanoflow analyse --model llama-2-70b --gpu A100-80GB --tp 8 --figures nanoflow-paper --batch 2048
      melange nanoflow analyse --model mixtral-8x7b --gpu H100 --tp 2 --format json
    """
    from melange.catalog.hardware import load_catalog
    from melange.nanoflow.costs import Device
    from melange.nanoflow.costs import analyse as analyse_service
    from melange.nanoflow.paper import load_paper_set
    from melange.report.nanoflow import render_analysis

    model, gpu = _required("--model", model), _required("--gpu", gpu)
    paper = load_paper_set() if figures == "nanoflow-paper" else None
    catalog = load_catalog() if paper is None else paper.catalog
    chosen = catalog.gpu(gpu)
    if paper is not None and gemm_tflops is None:
        gemm_tflops = paper.gemm_tflops.get(chosen.name)
    device = Device.of(chosen, gpus=given["tp"], precision=given["precision"], gemm_tflops=gemm_tflops)
    sizes = {name: given[name] for name in ("input_tokens", "output_tokens", "precision", "batch_tokens")}
    analysis = analyse_service(catalog.model(model), device, **sizes)
    click.echo(render_analysis(analysis, chosen.name, given["output"]))


@click.command()
@MODEL
@GPU
@TP
@PRECISION
@INPUT
@OUTPUT
@BATCH
@click.option("--decode", "decode_tokens", type=click.IntRange(0), help="Decode requests in it [default: steady mix].")
@click.option(
    "--context",
    "context_tokens",
    type=click.FloatRange(0, min_open=True),
    help="Their mean context [default: input + output / 2].",
)
@click.option(
    "--times",
    metavar="FILE",
    help="Measured operation times (YAML), or the shipped a100-llama-3-8b [default: modelled from the catalog].",
)
@click.option("--calibration", type=click.Path(dir_okay=False), help="Calibration of modelled times [default: priors].")
@click.option(
    "--interference",
    metavar="FILE",
    default="authors",
    show_default=True,
    help="Interference table (YAML), or the shipped authors or paper; both were measured on an A100.",
)
@click.option(
    "--nano-batches", type=click.IntRange(2, 4), default=2, show_default=True, help="Most nano-batches to try."
)
@click.option(
    "--quantum", "quantum_tokens", type=click.IntRange(1), default=128, show_default=True, help="Step of their ends."
)
@click.option("--every-split", is_flag=True, help="Run stage II on every split, not only on stage I's best.")
@click.option(
    "--time-limit",
    "time_limit_s",
    type=click.FloatRange(0, min_open=True),
    default=60,
    show_default=True,
    help="Seconds for the whole search.",
)
@click.option(
    "-o", "file", cls=OutputOption, type=click.Path(dir_okay=False), help="Write the pipeline to this JSON file."
)
@click.option(
    "--format",
    "output",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="Format of what is printed.",
)
@click.pass_context
def search(ctx: click.Context, /, **given: Any) -> None:
    """Search the nano-batches, their order and their shares of the device that run a layer in the least time.

    All times are predictions, from measured or modelled operation times. Where no split is faster, the answer is one
    batch. Exit code 4: the time limit passed before the answer was proven best.

    \b
    Examples:
      melange nanoflow search --times a100-llama-3-8b --batch 1024 --decode 384 -o pipeline.json
      melange nanoflow search --model llama-3-8b --gpu L4 --input 512 --output 256
      melange nanoflow search --model llama-3-8b --gpu H100 --interference h100.yaml --nano-batches 3 --every-split
    """
    import json

    from melange.files.text import write_atomic
    from melange.nanoflow.pipeline_search import search_pipeline
    from melange.report.nanoflow import render_search

    times, batch_tokens, decode_tokens = _batch(given)
    kept = ("nano_batches", "quantum_tokens", "every_split", "time_limit_s")
    found = search_pipeline(
        times,
        _interference(given["interference"]),
        batch_tokens=batch_tokens,
        decode_tokens=decode_tokens,
        **{name: given[name] for name in kept},
    )
    if given["file"]:
        write_atomic(given["file"], json.dumps(found.pipeline.to_dict(), indent=2) + "\n")
    click.echo(render_search(found, given["output"]))
    if not found.proven:
        click.echo("melange: the time limit passed before the pipeline was proven best; raise --time-limit", err=True)
        ctx.exit(4)


def _batch(given: dict[str, Any]) -> tuple[Any, int, int]:
    """Operation times, tokens of the batch, and how many of them decode."""
    from melange.catalog.hardware import load_catalog
    from melange.nanoflow.costs import Device, service_batch
    from melange.nanoflow.modelled_times import modelled_times
    from melange.perfmodel.calibration import read_calibration

    times, catalog = _measured(given), load_catalog()
    context = given["context_tokens"] or (times.context_tokens if times else None)
    context = context or given["input_tokens"] + given["output_tokens"] / 2
    batch, decode = given["batch_tokens"], given["decode_tokens"]
    if times is None or batch is None or decode is None:
        model = catalog.model(times.model if times else _required("--model", given["model"]))
        gpu = catalog.gpu(times.gpu if times else _required("--gpu", given["gpu"]))
        tp, precision = (times.tp, times.precision) if times else (given["tp"], given["precision"])
        sizes = {name: given[name] for name in ("input_tokens", "output_tokens")} | {"precision": precision}
        device = Device.of(gpu, gpus=tp, precision=precision)
        batch, steady = service_batch(model, device, **sizes, batch_tokens=batch)
        decode = steady if decode is None else decode
        times = times or modelled_times(
            model,
            gpu,
            context_tokens=context,
            prompt_tokens=given["input_tokens"],
            tp=tp,
            precision=precision,
            calibration=read_calibration(given["calibration"]) if given["calibration"] else None,
        )
    return times.at_context(context), batch, decode


def _measured(given: dict[str, Any]) -> Any:
    from melange.errors import InputError
    from melange.nanoflow.operation_times import read_operation_times

    if given["times"] is None:
        return None
    if given["calibration"]:
        raise InputError("--calibration and --times are both given", fix="measured times need no calibration")
    times = read_operation_times(_shipped(given["times"], "{}-times"))
    for name, default in (("model", None), ("gpu", None), ("tp", 1), ("precision", "fp16")):
        asked, stated = given[name], getattr(times, name)
        if asked != default and str(asked).lower() != str(stated).lower():
            raise InputError(f"--{name} is {asked}, the times are of {stated}", fix="leave it out beside --times")
    return times


def _interference(name: str) -> Any:
    from melange.perfmodel.interference import read_interference

    return read_interference(_shipped(name, "interference-{}"))


def _shipped(name: str, pattern: str) -> str:
    """The shipped file of this name, or the name itself as a path."""
    from melange.files.shipped import data_path

    path = data_path(f"profiles/nanoflow/{pattern.format(name)}.yaml")
    return str(path) if path.is_file() else name


def _required(option: str, value: str | None) -> str:
    if value is None:
        raise click.UsageError(f"{option} is missing")
    return value
