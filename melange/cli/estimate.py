"""``melange estimate``: rates and load points from the performance model."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

from melange.cli.estimate_load import check_load_options, loads_of, rates
from melange.cli.options import names, numbers, output_option, waiting
from melange.cli.outputs import OutputOption
from melange.cli.slo_options import EACH, LIMIT, share

if TYPE_CHECKING:
    from melange.serving.speculation import Speculation


def _grid(ctx: click.Context, param: click.Parameter, value: str) -> tuple[list[float], list[float]]:
    """``paper`` or ``250,1000x100,500`` -> input and output sizes; of prompts alone also ``250,1000``."""
    from melange.workload.sizes import PAPER_INPUT_EDGES_TOKENS, PAPER_OUTPUT_EDGES_TOKENS

    if value == "paper":
        return [float(e) for e in PAPER_INPUT_EDGES_TOKENS], [float(e) for e in PAPER_OUTPUT_EDGES_TOKENS]
    text = f"{value}x1" if ctx.params.get("prefill_only") and "x" not in value else value
    try:
        inputs, outputs = (sorted({float(size) for size in part.split(",")}) for part in text.split("x"))
    except ValueError:
        raise click.BadParameter(f"{value!r} is not 'paper' or like 250,1000x100,500", ctx, param) from None
    if not all(0 < size < float("inf") for size in (*inputs, *outputs)):
        raise click.BadParameter(f"{value!r} holds a size that is not positive", ctx, param)
    return inputs, outputs


def _speculation(ctx: click.Context, param: click.Parameter, value: str | None) -> Speculation | None:
    """``3:0.7:mtp`` -> Speculation."""
    from melange.errors import InputError
    from melange.serving.speculation import Speculation

    try:
        return None if value is None else Speculation.parse(value)
    except InputError as error:
        raise click.BadParameter(str(error), ctx, param) from None


def _sequences(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[int | str, ...]:
    """``("best",)``, or numbers."""
    return values if values == ("best",) else numbers(ctx, param, values)


@click.command()
@click.option("--model", help="A model: a name of 'melange gpus --models', a Hugging Face id or a config.json's path.")
@click.option("--model-config", type=click.Path(dir_okay=False), help="A Hugging Face config.json instead of a name.")
@click.option("--gpu", "gpus", multiple=True, required=True, callback=names, metavar="NAMES", help="GPUs to estimate.")
@click.option("--gpu-file", type=click.Path(dir_okay=False), help="YAML of GPUs given by figures, as in the catalog.")
@click.option("--tp", default=("1",), multiple=True, callback=names, metavar="N,N", help="Tensor-parallel degrees [1].")
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    callback=names,
    help="Precisions of the weights [the checkpoint's own].",
)
@click.option(
    "--engine",
    "engines",
    default=("vllm",),
    multiple=True,
    callback=names,
    help="Engines: vllm, sglang, tensorrt-llm, or nanoflow for overlapped nano-batches where they are faster [vllm].",
)
@click.option("--kv-dtype", "kv_dtypes", multiple=True, callback=names, help="KV-cache dtypes: auto, fp8 [auto].")
@click.option("--batched-tokens", multiple=True, callback=numbers, metavar="N,N", help="Token budgets [the engine's].")
@click.option(
    "--speculative",
    callback=_speculation,
    metavar="K:ACCEPTANCE[:METHOD]",
    help="Speculative decoding: tokens drafted a step, the share accepted of them, and mtp, eagle or ngram [mtp].",
)
@click.option(
    "--sequences",
    multiple=True,
    callback=_sequences,
    metavar="N,N",
    help="Most requests at once; best for its own and those that suit the SLO [the engine's].",
)
@click.option("--grid", default="paper", callback=_grid, show_default=True, help="Sizes: paper, or 250,1000x100,500.")
@click.option(
    "--concurrency",
    multiple=True,
    callback=numbers,
    metavar="N,N",
    help="What a replica does with so many clients, each sending its next request when it has its answer.",
)
@click.option(
    "--rate", "rates", multiple=True, callback=rates, metavar="R,R", help="The same under so many requests a second."
)
@click.option(
    "--prefill-only",
    is_flag=True,
    is_eager=True,
    help="The same of prompts alone, one token of output: highest rate, and TTFT of a lone prompt or under the load.",
)
@click.option("--cached-tokens", type=click.FloatRange(0), default=0.0, help="Prefix-hit tokens of every prompt.")
@click.option("--slo-tpot-ms", type=LIMIT, help=f"TPOT limit in ms for the rates that are shown; {EACH}.")
@click.option(
    "--tpot-definition",
    type=click.Choice(["decode", "e2e_per_token"]),
    default="decode",
    show_default=True,
    help="Which TPOT: (latency - TTFT) / (tokens - 1), or latency / tokens.",
)
@click.option("--slo-ttft-ms", type=LIMIT, help=f"TTFT limit in ms; {EACH}.")
@click.option(
    "--attainment",
    callback=share,
    metavar="SHARE",
    help="Share of requests that must keep the SLO, in place of its mean.",
)
@click.option("--calibration", type=click.Path(dir_okay=False), help="Calibration file in place of the priors.")
@click.option(
    "--save",
    cls=OutputOption,
    type=click.Path(dir_okay=False),
    help="Write the load points to this measurements file (JSONL).",
)
@output_option("table", "json", "csv")
def estimate(**given: Any) -> None:
    """Estimate what GPUs serve that nobody measured: rates under an SLO, and a ladder of load points.

    The load points answer any SLO later: use them as a profile file of a workload. Everything is labelled as estimated
    and carries an 80% band.

    With --concurrency, --rate or --prefill-only: what one replica does at each size of the grid under that load
    (throughput with its band, mean TPOT, TTFT and latency, slots), beside the nearest public measurement.

    \b
    Examples:
      melange estimate --model llama-3.1-8b --gpu L4,A10G,A100-80GB,H100
      melange estimate --model llama-3.1-70b --gpu H100 --tp 2,4 --precision fp8 --slo-tpot-ms 40 --grid 500x250
      melange estimate --model llama-3.1-8b --gpu H100 --kv-dtype auto,fp8 --batched-tokens 1024,8192 --grid 500x250
      melange estimate --model llama-3.1-8b --gpu H100 --slo-tpot-ms 30 --attainment 0.99 --sequences best
      melange estimate --model llama-3-8b --gpu A100-80GB --engine vllm,nanoflow --grid 1000x500
      melange estimate --model llama-3.1-8b --gpu H100,L40S --grid 1000x1000 --concurrency 16,64
      melange estimate --model qwen3-32b --gpu H100 --tp 2 --precision fp8 --grid 2000x300 --rate 2,4
      melange estimate --model llama-3.1-8b --gpu H100 --grid 1000,8000 --prefill-only
      melange estimate --model deepseek-v3 --gpu H200 --tp 8 --grid 1000x1000 --concurrency 1,64 --speculative 1:0.85
      melange estimate --model-config ./config.json --gpu MyGPU --gpu-file gpus.yaml --save estimated.jsonl
    """
    from melange.catalog.described import extended_catalog
    from melange.catalog.hardware import load_catalog
    from melange.catalog.model_config import model_named
    from melange.errors import InputError
    from melange.files.lines import replace_lines
    from melange.measurements.file import Header, record_line
    from melange.perfmodel.at_load import estimate_at_load
    from melange.perfmodel.calibration import read_calibration
    from melange.perfmodel.estimates import estimate as estimated
    from melange.report.estimates import render_estimates
    from melange.report.loads import render_loads

    catalog = extended_catalog(load_catalog(), [given["gpu_file"]] if given["gpu_file"] else [])
    if bool(given["model"]) == bool(given["model_config"]):
        raise InputError("give either --model or --model-config")
    model, _ = model_named(given["model"] or given["model_config"], catalog)
    check_load_options(given)
    inputs, outputs = given["grid"]
    asked: dict[str, Any] = {
        "tp": _degrees(given["tp"]),
        "precisions": given["precisions"] or None,
        "engines": given["engines"],
        "kv_dtypes": given["kv_dtypes"] or ("auto",),
        "batched_tokens": given["batched_tokens"] or (None,),
        "sequences": given["sequences"] or (None,),
        "input_tokens": inputs,
        "output_tokens": [1.0] if given["prefill_only"] else outputs,
        "cached_tokens": given["cached_tokens"],
        "speculation": given["speculative"],
        "calibration": read_calibration(given["calibration"]) if given["calibration"] else None,
        "catalog": catalog,
    }
    if given["speculative"] and given["save"]:
        raise click.UsageError("--save writes load points, which cannot say --speculative: leave one out")
    loads = loads_of(given)
    if loads:
        with waiting(f"estimating {model.name}"):
            under = estimate_at_load(model, given["gpus"], loads, **asked)
        click.echo(render_loads(under, given["output"]))
        return
    with waiting(f"estimating {model.name}"):
        found = estimated(model, given["gpus"], _slo(given), **asked)
    if given["save"]:
        header = Header(model=model.name, facts={"source": "estimated", "calibration": found.calibration.describe()})
        replace_lines(given["save"], record_line(header) + "".join(map(record_line, found.points)))
    click.echo(render_estimates(found, given["output"]))


def _slo(given: dict[str, Any]) -> Any:
    from melange.slo import Slo

    if given["attainment"] is not None and given["slo_tpot_ms"] is None and given["slo_ttft_ms"] is None:
        raise click.UsageError("--attainment goes with --slo-tpot-ms or --slo-ttft-ms")
    limits = {name: given[f"slo_{name}_ms"] for name in ("tpot", "ttft")}
    asked: dict[str, Any] = {}
    for name, limit in limits.items():
        asked |= {} if limit is None else limit.of(name)
    return Slo(**asked, tpot_definition=given["tpot_definition"], attainment=given["attainment"])


def _degrees(values: tuple[str, ...]) -> list[int]:
    from melange.errors import InputError

    if not all(re.fullmatch("[0-9]{1,9}", value) and int(value) for value in values):
        raise InputError(f"--tp is {','.join(values)}", fix="give whole numbers such as 1,2,4")
    return list(dict.fromkeys(map(int, values)))
