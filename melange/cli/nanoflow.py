"""``melange nanoflow``: analyse a model on a GPU, search a pipeline for it, serve a model with it."""

from __future__ import annotations

from typing import Any

import click

from melange.cli.lazy import LazyGroup

# name: (module:attribute, one line for the overview)
COMMANDS = {
    "analyse": ("melange.cli.nanoflow_search:analyse", "Break a layer down by operation and say what bounds it."),
    "search": ("melange.cli.nanoflow_search:search", "Search the best pipeline of nano-batches."),
    "measure": ("melange.cli.nanoflow:measure", "Measure this machine's GPU: times, interference, four arms."),
    "serve": ("melange.cli.nanoflow:serve", "Serve a model over HTTP with a pipeline."),
}


@click.group(cls=LazyGroup, places=COMMANDS)
def nanoflow() -> None:
    """Overlap compute, memory and network inside one GPU by splitting batches into nano-batches.

    \b
    Examples:
      melange nanoflow analyse --model llama-3-8b --gpu A100-80GB --input 1024 --output 512
      melange nanoflow search --model llama-3-8b --gpu A100-80GB --batch 1024 -o pipeline.json
      melange nanoflow measure -o h100
      melange nanoflow serve --model ./llama-3-8b --device cuda --pipeline pipeline.json
    """


@click.command()
@click.option("-o", "folder", type=click.Path(file_okay=False), required=True, help="Folder for the report and tables.")
@click.option("--model", default="llama-3-8b", show_default=True, metavar="NAME|DIR", help="Whose layers to run.")
@click.option("--layers", type=click.IntRange(2, 12), default=8, show_default=True, help="How many of them.")
@click.option("--batch", "batch_tokens", type=click.IntRange(2), default=1024, show_default=True, help="Its tokens.")
@click.option(
    "--decode",
    "decode_tokens",
    type=click.IntRange(1, 10**12),
    default=384,
    show_default=True,
    help="Of them decoding.",
)
@click.option(
    "--context", type=click.IntRange(1, 10**12), default=1024, show_default=True, help="Context of each in tokens."
)
@click.option("--dtype", type=click.Choice(["fp16", "bf16"]), default="fp16", show_default=True, help="Number format.")
@click.option("--time-limit", type=float, default=60.0, show_default=True, help="Seconds for the search.")
def measure(
    folder: str,
    model: str,
    layers: int,
    batch_tokens: int,
    decode_tokens: int,
    context: int,
    dtype: str,
    time_limit: float,
) -> None:
    """Measure this machine's NVIDIA GPU and hold the search's predictions against it.

    Times every operation and how kernels slow each other down, searches a pipeline with that, and runs one batch, the
    split without overlap, overlapped streams, and overlap with attention confined to part of the GPU. Writes report.md,
    report.json and the tables for 'nanoflow search' and 'serve' into the folder.

    \b
    Examples:
      melange nanoflow measure -o h100
      melange nanoflow measure --model llama-2-7b --batch 2048 --decode 512 --context 512 -o h100-llama-2
    """
    from melange.nanoflow.runtime.bench import BatchPlan
    from melange.nanoflow.runtime.gpu_report import measure_gpu

    plan = BatchPlan(batch_tokens=batch_tokens, decode_tokens=decode_tokens, context_tokens=context)
    report = measure_gpu(model=model, plan=plan, layers=layers, dtype=dtype, time_limit_s=time_limit)
    for path in report.write(folder):
        click.echo(path)


@click.command()
@click.option("--model", required=True, metavar="DIR|NAME", help="Hugging Face folder, or a catalog model's name.")
@click.option("--served-model-name", metavar="NAME", help="Name in requests. Default: the folder's or model's name.")
@click.option("--random-weights", is_flag=True, help="Draw weights from --seed although the folder may have some.")
@click.option("--pipeline", "pipeline_file", type=click.Path(dir_okay=False), help="Pipeline from 'nanoflow search'.")
@click.option("--batch-tokens", type=click.IntRange(2), help="Tokens an iteration without a pipeline.  [default: 2048]")
@click.option(
    "--max-requests",
    type=click.IntRange(1, 10**12),
    help="Most requests at once. Default: the decode requests of --pipeline, else 256, or half a smaller batch.",
)
@click.option("--max-context-tokens", type=click.IntRange(2), help="Longest prompt plus output. Default: the model's.")
@click.option(
    "--expected-output-tokens",
    type=click.IntRange(1, 10**12),
    help="Admit requests as if they produced this many tokens; late ones may be put back. Default: their max_tokens.",
)
@click.option("--kv-memory-gib", type=float, help="KV cache of each process. Default: 90% of a GPU's rest; CPU 1.")
@click.option("--page-tokens", type=click.IntRange(1, 10**12), default=16, show_default=True, help="Tokens a KV page.")
@click.option("--tp", type=click.IntRange(1, 10**12), default=1, show_default=True, help="Tensor-parallel processes.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True, help="Where to run.")
@click.option("--dtype", type=click.Choice(["bf16", "fp16", "fp32"]), default="bf16", show_default=True, help="Format.")
@click.option(
    "--seed",
    type=click.IntRange(0, 2**63 - 1),
    default=0,
    show_default=True,
    help="Seed of random weights and of sampling.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="Port; 0 picks one.")
@click.option(
    "--max-body-bytes",
    type=click.IntRange(1, 10**12),
    default=16 * 2**20,
    show_default=True,
    help="Largest request body; beyond it 413. Bodies of all clients together may be 16 times that, beyond it 503.",
)
@click.option(
    "--max-prompts",
    type=click.IntRange(1, 10**12),
    default=2048,
    show_default=True,
    help="Most prompts a request; beyond it 400.",
)
@click.option(
    "--max-prompt-tokens", type=click.IntRange(1, 10**12), help="Longest prompt; beyond it 400. Default: the context."
)
@click.option(
    "--max-output-tokens", type=click.IntRange(1, 10**12), help="Most max_tokens; beyond it 400. Default: the context."
)
@click.option(
    "--max-waiting-prompts",
    type=click.IntRange(1, 10**12),
    default=16384,
    show_default=True,
    help="Most unfinished prompts of all clients; beyond it 503.",
)
@click.option(
    "--prompts-at-once",
    type=click.IntRange(1, 10**12),
    help="Most prompts of one request in the engine at once, so that others get in between. Default: --max-requests.",
)
@click.option(
    "--read-timeout",
    "read_timeout_s",
    type=click.FloatRange(0, 86400, min_open=True),
    default=60.0,
    show_default=True,
    help="Seconds to send a request's headers, or be cut off, and again its body, or get 408. Idle connections too.",
)
@click.option(
    "--write-timeout",
    "write_timeout_s",
    type=click.FloatRange(0, 86400, min_open=True),
    default=60.0,
    show_default=True,
    help="Seconds in which a client must take each part of its answer, or be cut off.",
)
def serve(
    model: str,
    served_model_name: str | None,
    pipeline_file: str | None,
    batch_tokens: int | None,
    host: str,
    port: int,
    **options: Any,
) -> None:
    """Serve a Llama or Mixtral model over OpenAI's completions protocol until interrupted.

    A folder needs config.json and safetensors files (tokenizer.json for text prompts). A catalog model gets random
    weights: right for measuring speed, useless for text. Without --pipeline every batch runs whole.

    \b
    Examples:
      melange nanoflow serve --model ./llama-3-8b --device cuda --pipeline pipeline.json
      melange nanoflow serve --model llama-3-8b --device cuda --port 8001
      melange nanoflow serve --model ./tiny --random-weights --dtype fp32 --kv-memory-gib 0.5
      melange nanoflow serve --model mixtral-8x7b --device cuda --tp 4
      melange nanoflow serve --model ./llama-3-8b --device cuda --max-prompts 256 --max-output-tokens 4096
    """
    from dataclasses import fields

    from melange.errors import InputError
    from melange.nanoflow.pipeline import read_pipeline
    from melange.nanoflow.runtime.build import EngineOptions, resolve_model
    from melange.nanoflow.runtime.processes import running_engine
    from melange.nanoflow.runtime.server import run_server
    from melange.nanoflow.runtime.server_limits import ServerLimits
    from melange.nanoflow.runtime.text import TextCodec

    limits = ServerLimits(**{one.name: options.pop(one.name) for one in fields(ServerLimits)})
    if pipeline_file and batch_tokens:
        raise InputError("--batch-tokens and --pipeline are both given", fix="the pipeline sets the batch's size")
    pipeline = read_pipeline(pipeline_file) if pipeline_file else None
    config, folder = resolve_model(model)
    codec = TextCodec.of_folder(folder)
    given = EngineOptions(model=model, pipeline=pipeline, batch_tokens=batch_tokens or 2048, **options)
    with running_engine(given) as engine:
        name = served_model_name or config.name
        cached = engine.scheduler.limits.pages * engine.scheduler.limits.page_tokens
        order = "one batch" if pipeline is None else f"the pipeline of {pipeline.model} on {pipeline.gpu}"
        count = given.run_pipeline.nano_batches
        click.echo(f"{name}: KV cache of {cached:,} tokens, {order}, nano-batches: {count}", err=True)
        run_server(
            engine,
            name=name,
            codec=codec,
            host=host,
            port=port,
            limits=limits,
            on_ready=lambda url: click.echo(f"listening on {url}", err=True),
        )
