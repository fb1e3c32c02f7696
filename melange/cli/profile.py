"""``melange profile``: measure a serving engine, and look at, merge, check and import measurements."""

from __future__ import annotations

import shlex
from typing import Any

import click

from melange.cli.default_group import DefaultGroup
from melange.cli.options import output_option, warning
from melange.cli.outputs import OutputOption
from melange.cli.slo_options import slo_of, slo_options


def _tokens(ctx: click.Context, param: click.Parameter, value: str) -> tuple[int, ...]:
    """``"25,100"`` -> ``(25, 100)``."""
    try:
        tokens = tuple(int(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a list of whole numbers such as 25,100,250", ctx, param) from None
    if min(tokens) < 1:
        raise click.BadParameter("sizes are at least 1 token", ctx, param)
    return tuple(sorted(set(tokens)))


def _engine_args(text: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise click.BadParameter(f"{str(error).lower()} in {text[:100]!r}", param_hint="--engine-args") from None


def _server_options(command: Any) -> Any:
    for option in reversed(
        (
            click.option("--url", help="Attach to this OpenAI-compatible server instead of starting vLLM."),
            click.option("--api-key-env", metavar="NAME", help="Environment variable that holds the server's API key."),
            click.option("--model", help="Model to serve (a hub name or a folder), or to ask the server for."),
            click.option("--served-name", help="Name for the measurements [default: the last part of --model]."),
            click.option(
                "--vllm", default="vllm", show_default=True, help="The vllm executable, for one in another environment."
            ),
            click.option(
                "--engine-args", default="", metavar="TEXT", help="Arguments for 'vllm serve', as one string."
            ),
            click.option("--engine-log", type=click.Path(dir_okay=False), help="Where vLLM's output goes."),
            click.option("--gpu", help="Name of the GPU [default: what nvidia-smi says, CPU without one]."),
            click.option("--precision", help="Precision of the weights [default: as arguments and model say]."),
            click.option(
                "--tp", type=click.IntRange(1), help="Tensor-parallel degree [default: as engine arguments say]."
            ),
        )
    ):
        command = option(command)
    return command


@click.group(cls=DefaultGroup, default="run", context_settings={"help_option_names": ["-h", "--help"]})
def profile() -> None:
    """Measure which request rates an engine sustains ('run' is the default), and handle the results.

    \b
    Examples:
      melange profile --model meta-llama/Llama-3.1-8B --slo-tpot-ms 100 --tpot-definition decode -o l4.jsonl
      melange profile --url http://127.0.0.1:8000 --slo-ttft-ms 500 -o l4.jsonl --dry-run
      melange profile show l4.jsonl --slo-tpot-ms 100 --tpot-definition decode --usd-per-hour 0.8
      melange profile merge l4.jsonl h100.jsonl -o all.jsonl
      melange profile check l4.jsonl --url http://127.0.0.1:8000
      melange profile import bench.json --gpu L4 --model llama-3.1-8b -o l4.jsonl
    """


@profile.command("run")
@_server_options
@slo_options
@click.option("--input-tokens", callback=_tokens, default="128,512,2000", show_default=True, help="Prompt sizes.")
@click.option("--output-tokens", callback=_tokens, default="64,256,1000", show_default=True, help="Output sizes.")
@click.option(
    "--cached-share", type=click.FloatRange(0, 0.99), default=0.0, help="Share of each prompt that all have in common."
)
@click.option("--resolution", type=float, default=1.39, show_default=True, help="Widest bracket high/low that is fine.")
@click.option("--point-seconds", type=float, default=3600.0, show_default=True, help="Most time for one load point.")
@click.option(
    "--requests",
    type=click.IntRange(50),
    default=4000,
    show_default=True,
    help="Requests that a load point may take; few of them do.",
)
@click.option(
    "--max-concurrency", type=click.IntRange(1), default=256, show_default=True, help="Top of the closed loops."
)
@click.option("--budget-minutes", type=float, help="Stop after this time; spend it where it tells most.")
@click.option("--budget-usd", type=float, help="Stop after this much money; needs --usd-per-hour.")
@click.option("--usd-per-hour", type=float, help="Price of what is measured.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of arrivals and prompts.")
@click.option("--dry-run", is_flag=True, help="Print plan, time and cost, and measure nothing.")
@click.option(
    "-o",
    "--output",
    cls=OutputOption,
    type=click.Path(dir_okay=False),
    default="profile.jsonl",
    show_default=True,
    help="Measurements.",
)
def run(**given: Any) -> None:
    """Measure every input x output size, and write load points to a measurements file.

    Starts vLLM (or attaches with --url), raises the load until the SLO breaks, and brackets the highest sustainable
    rate. Every load point is on the disk before the next begins: the same command after an interruption goes on
    where it was. Without an SLO the saturation throughput is searched for.

    \b
    Examples:
      melange profile run --model ./tiny --vllm .venv-vllm/bin/vllm --engine-args "--load-format dummy"
          --slo-tpot-ms 20 --tpot-definition decode --input-tokens 16,64 --output-tokens 16,64 -o cpu.jsonl
      melange profile run --url http://127.0.0.1:8000 --budget-usd 2 --usd-per-hour 0.8 --slo-ttft-ms 500
    """
    from melange.cli.profile_progress import progress_display
    from melange.errors import EngineError
    from melange.profiler.runner import RunRequest, estimate, profile_engine
    from melange.report.measurements import render_capacities, render_estimate

    request = RunRequest(slo=slo_of(given), engine_args=_engine_args(given["engine_args"]), **_asked(given))
    if given["dry_run"]:
        click.echo(render_estimate(estimate(request), request))
        return
    with progress_display(request.settings.slo) as report:
        capacities = profile_engine(request, report=report, warn=warning)
    click.echo(render_capacities(capacities, request.settings.slo, given["usd_per_hour"]))
    left = [found for found in capacities if found.status == "not measured"]
    if left:
        raise EngineError(f"{len(left)} of {len(capacities)} sizes not measured; the same command tries them again")


def _asked(given: dict[str, Any]) -> dict[str, Any]:
    names = (
        "url api_key_env model served_name vllm engine_log gpu precision tp input_tokens output_tokens cached_share "
        "resolution point_seconds requests max_concurrency budget_minutes budget_usd usd_per_hour seed output"
    )
    return {name: given[name] for name in names.split()}


@profile.command("show")
@click.argument("file", type=click.Path())
@slo_options
@click.option("--usd-per-hour", type=click.FloatRange(1e-6, 1e9), help="Price of one replica: adds tokens per dollar.")
@output_option("table", "json", "csv")
def show(file: str, usd_per_hour: float | None, output: str, **given: Any) -> None:
    """Draw the highest sustainable rates of a measurements FILE as a heatmap, for an SLO.

    Without an SLO on the command line the one that the file was measured for is used.

    \b
    Examples:
      melange profile show l4.jsonl
      melange profile show l4.jsonl --slo-ttft-ms 500 --attainment 0.99 --usd-per-hour 0.8
    """
    from melange.measurements.file import read_measurements
    from melange.report.measurements import file_slo, render_profile

    measured = read_measurements(file)
    for doubt in measured.warnings:
        warning(doubt)
    slo = slo_of(given)
    slo = slo if slo.thresholds_s else file_slo(measured)
    click.echo(render_profile(measured, slo, usd_per_hour=usd_per_hour, output=output), nl=False)


@profile.command("merge")
@click.argument("files", nargs=-1, required=True, type=click.Path())
@click.option(
    "-o",
    "--output",
    cls=OutputOption,
    type=click.Path(dir_okay=False),
    help="File to write; none of FILES.  [required]",
)
def merge(output: str | None, files: tuple[str, ...]) -> None:
    """Write the measurements of all FILES into another file, every load point once. FILES stay as they are.

    \b
    Examples:
      melange profile merge l4.jsonl h100.jsonl -o all.jsonl
    """
    if output is None:
        raise click.UsageError("merge needs -o FILE, the file to write: all others are only read")
    from melange.measurements.merge import merge_measurements

    merged = merge_measurements(output, files)
    for doubt in merged.warnings:
        warning(doubt)
    click.echo(f"{output}: {merged.points} load points of {len(files)} files, {merged.repeated} repeated ones left out")


@profile.command("check")
@click.argument("file", type=click.Path())
@_server_options
@click.option("--sentinels", type=click.IntRange(1), default=3, show_default=True, help="Sizes to measure again.")
@click.option("--tolerance", type=float, default=0.1, show_default=True, help="Relative change that counts as none.")
@click.option("--seed", type=int, default=1, show_default=True, help="Seed of arrivals and prompts.")
@click.pass_context
def check(ctx: click.Context, /, file: str, sentinels: int, tolerance: float, seed: int, **given: Any) -> None:
    """Measure a few sizes of FILE again and say whether the profile is still true (after an engine upgrade, say).

    Exits with 1 when it is not.

    \b
    Examples:
      melange profile check l4.jsonl --url http://127.0.0.1:8000
    """
    from melange.profiler.check import check_measurements
    from melange.profiler.runner import ServerRequest
    from melange.report.measurements import render_check

    names = "url api_key_env model served_name vllm engine_log gpu precision tp"
    server = ServerRequest(
        engine_args=_engine_args(given["engine_args"]), **{name: given[name] for name in names.split()}
    )
    result = check_measurements(file, server, sentinels=sentinels, tolerance=tolerance, seed=seed, warn=warning)
    click.echo(render_check(result))
    if not result.holds:
        ctx.exit(1)


@profile.command("import")
@click.argument("files", nargs=-1, required=True, type=click.Path())
@click.option("--gpu", required=True, help="GPU that was measured.")
@click.option("--model", required=True, help="Model that was measured.")
@click.option("--precision", default="bf16", show_default=True, help="Precision of its weights.")
@click.option("--tp", type=click.IntRange(1), default=1, show_default=True, help="Tensor-parallel degree.")
@click.option("--engine", default="vllm", show_default=True, help="Serving engine.")
@click.option("--engine-version", help="Its version.")
@click.option(
    "--kv-dtype", type=click.Choice(["auto", "fp8"]), default="auto", show_default=True, help="Of its KV cache."
)
@click.option("--batched-tokens", type=click.IntRange(1), help="Its token budget of an iteration  [default: its own]")
@click.option(
    "-o",
    "--output",
    cls=OutputOption,
    type=click.Path(dir_okay=False),
    required=True,
    help="Measurements file to add to.",
)
def import_(files: tuple[str, ...], output: str, **key: Any) -> None:
    """Add load points that other tools measured to a measurements file.

    Reads the JSON results of 'vllm bench serve', GuideLLM and AIPerf; the format is told by the content.

    \b
    Examples:
      melange profile import bench-2rps.json bench-4rps.json --gpu L4 --model llama-3.1-8b -o l4.jsonl
    """
    from melange.interop.benchmarks import import_results
    from melange.serving.config import ConfigKey

    config = ConfigKey(
        key["model"], key["gpu"], key["tp"], key["precision"], key["engine"], key["kv_dtype"], key["batched_tokens"]
    )
    points = import_results(files, config, engine_version=key["engine_version"], output=output, warn=warning)
    click.echo(f"{output}: {len(points)} load points added")
    for point in points:
        if not point.valid:
            warning(f"{point.input_tokens:g} -> {point.output_tokens:g} tokens: {point.invalid_reason}")
