"""``melange workload from-metrics``: a workload file from a vLLM server's Prometheus histograms."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import click

from melange.cli.slo_options import slo_of
from melange.cli.workload_options import choice_options, grid_of, hand_out, shape_options, spec_of


@click.command("from-metrics")
@click.argument("source", metavar="URL|FILE")
@click.option("--rate", "rate_rps", type=float, required=True, help="Requests per second to plan for.")
@click.option("--trace", type=click.Path(), help="A request trace whose joint sizes shape the two histograms.")
@shape_options
@click.option("--name", help="The workload's name [default: from-metrics].")
@choice_options
def from_metrics(source: str, **given: Any) -> None:
    """Turn vLLM's histograms of prompt and generation tokens into a workload file.

    SOURCE is a server's address (its /metrics is scraped) or a saved scrape. The two histograms are marginals: which
    prompt went with which answer is not told, and sizes are taken as independent. A --trace of a similar service
    shapes the joint instead, with the marginals kept.

    \b
    Examples:
      melange workload from-metrics http://127.0.0.1:8000 --rate 12 --model llama-3.1-8b -o workload.yaml
      melange workload from-metrics scrape.txt --rate 12 --trace requests.csv --max-input 4000 -o workload.yaml
    """
    from melange.workload.histogram import workload_from_trace
    from melange.workload.marginals import shaped_by
    from melange.workload.prometheus import workload_from_metrics

    asked = {"grid": grid_of(given), "slo": slo_of(given), "model": given["model"], "rate_rps": given["rate_rps"]}
    with tempfile.TemporaryDirectory() as folder:
        path = _scraped(source, Path(folder)) if source.startswith(("http://", "https://")) else Path(source)
        result, report = workload_from_metrics(path, name=given["name"] or "from-metrics", **asked)
    if given["trace"]:
        trace, _ = workload_from_trace(given["trace"], **asked)
        result = shaped_by(result, trace)
    comment = f"From the metrics of {source} by 'melange workload from-metrics'."
    hand_out(spec_of(result, given), report, comment, given["output"])
    if given["trace"]:
        click.echo(f"the joint of input and output sizes is shaped by {given['trace']}", err=True)


def _scraped(url: str, folder: Path) -> Path:
    from melange.profiler.answers import get_text

    address = url.rstrip("/")
    address = address if address.endswith("/metrics") else address.removesuffix("/v1") + "/metrics"
    path = folder / "metrics"
    path.write_text(get_text(address), encoding="utf-8")
    return path
