"""``melange aibrix``: exchange profiles with AIBrix's GPU optimizer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from melange.cli.options import names, warning
from melange.cli.outputs import OutputOption

if TYPE_CHECKING:
    from melange.measurements.file import Header
    from melange.measurements.measurement import Measurement


@click.group()
def aibrix() -> None:
    """Exchange profiles with AIBrix's GPU optimizer.

    \b
    Examples:
      melange aibrix import l4.json --gpu L4 --model llama-2-7b -o measurements.jsonl
      melange aibrix export arena-120ms --gpu L4 -o l4.json
    """


@aibrix.command("import")
@click.argument("files", nargs=-1, required=True)
@click.option("--model", required=True, help="The model that the deployments serve.")
@click.option(
    "--gpu",
    "gpus",
    multiple=True,
    callback=names,
    metavar="[DEPLOYMENT=]GPU",
    help="The GPU of a deployment, or of all; without it a deployment's name must be a GPU's.",
)
@click.option("--tp", type=click.IntRange(1), default=1, show_default=True, help="Tensor-parallel degree of a replica.")
@click.option("--precision", default="fp16", show_default=True, help="Precision of the weights.")
@click.option("--engine", default="vllm", show_default=True, help="Serving engine.")
@click.option(
    "-o",
    "--output",
    cls=OutputOption,
    required=True,
    type=click.Path(dir_okay=False),
    help="Measurements file to append to.",
)
@click.option(
    "--prices-csv",
    cls=OutputOption,
    type=click.Path(dir_okay=False),
    help="Also write the deployments' costs as a price file.",
)
def import_(
    files: tuple[str, ...],
    model: str,
    gpus: tuple[str, ...],
    tp: int,
    precision: str,
    engine: str,
    output: str,
    prices_csv: str | None,
) -> None:
    """Append the profiles in FILES to a measurements file.

    AIBrix keeps one throughput for each size, at the SLO it was generated for. A workload uses it with
    'profiles: {files: [measurements.jsonl], assume_slo: true}' and, if you like, 'prices: {file: prices.csv}'.

    \b
    Examples:
      melange aibrix import l4.json --gpu L4 --model llama-2-7b -o measurements.jsonl
      melange aibrix import all.json --gpu chat-a=A10G,chat-b=A100-80GB --model llama-2-7b -o m.jsonl --prices-csv p.csv
    """
    from melange.files.text import write_atomic
    from melange.interop.aibrix import measurements_of, read_aibrix
    from melange.interop.aibrix import prices_csv as as_csv
    from melange.measurements.file import append_records

    profiles = [profile for file in files for profile in read_aibrix(file)]
    chosen = [(profile, _gpu_of(profile.deployment, gpus), tp) for profile in profiles]
    prices = as_csv(chosen) if prices_csv else None
    converted = [
        measurements_of(profile, model=model, gpu=gpu, tp=tp, precision=precision, engine=engine)
        for profile, gpu, _ in chosen
    ]
    records: list[Header | Measurement] = []
    for header, points in converted:
        records += [header, *points]
    append_records(output, records, warn=warning)
    if prices_csv and prices is not None:
        write_atomic(prices_csv, prices)
    total = sum(len(points) for _, points in converted)
    click.echo(f"{total} points of {len(converted)} deployments appended to {output}", err=True)


def _gpu_of(deployment: str, gpus: tuple[str, ...]) -> str:
    from melange.catalog.hardware import load_catalog
    from melange.errors import InputError

    named = dict(text.split("=", 1) for text in gpus if "=" in text)
    general = [text for text in gpus if "=" not in text]
    if deployment in named:
        return named[deployment]
    if len(general) > 1:
        raise InputError(f"--gpu is given {len(general)} times", fix="write --gpu DEPLOYMENT=GPU for each")
    if general:
        return general[0]
    try:
        return load_catalog().gpu(deployment).name
    except InputError:
        raise InputError(
            f"which GPU does deployment {deployment!r} run on?", fix=f"say --gpu {deployment}=GPU, see 'melange gpus'"
        ) from None


@aibrix.command()
@click.argument("source", metavar="WORKLOAD|PLAN")
@click.option("--gpu", "only", multiple=True, callback=names, metavar="NAMES", help="Only these GPUs or configs.")
@click.option(
    "-o", "--output", cls=OutputOption, type=click.Path(dir_okay=False), help="File to write, in place of stdout."
)
def export(source: str, only: tuple[str, ...], output: str | None) -> None:
    """Write a workload's or plan's profile as AIBrix profiles: one object, or a list of several.

    Throughputs are those at the workload's SLO; all profiles of one source share one grid of sizes, as AIBrix demands.

    \b
    Examples:
      melange aibrix export arena-120ms --gpu L4 -o l4.json
      melange aibrix export plan.json > profiles.json
    """
    import json
    import time

    from melange.files.text import write_atomic

    rows = [profile.to_dict() for profile in _exported(source, only, time.time())]
    text = json.dumps(rows[0] if len(rows) == 1 else rows)
    if output is None:
        click.echo(text)
    else:
        write_atomic(output, text + "\n")


def _exported(source: str, only: tuple[str, ...], now: float) -> Any:
    from melange.errors import InputError
    from melange.interop.aibrix import from_choices, from_plan
    from melange.plan.file import read_plan
    from melange.planning.planner import choices_of
    from melange.planning.workload_file import load_workload

    if source.endswith(".json"):
        plan = read_plan(source)
        profiles, gpus = from_plan(plan, created_unix_s=now), {name: c.gpu for name, c in plan.configs.items()}
    else:
        choices = choices_of(load_workload(source))
        profiles = from_choices(choices, created_unix_s=now)
        gpus = {config.name: config.instance.gpu for config in choices.configs}
    known = {*gpus, *gpus.values()}
    for name in only:
        if name not in known:
            raise InputError(f"{source} has no GPU or config {name!r}", fix=f"it has {', '.join(sorted(known))}")
    return [p for p in profiles if not only or p.deployment in only or gpus[p.deployment] in only]
