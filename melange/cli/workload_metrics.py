"""``melange workload from-metrics``: a workload file from a vLLM server's Prometheus histograms."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import click

from melange.cli.workload import _edges, _grid, _prices, _profiles, _slo


@click.command("from-metrics")
@click.argument("source", metavar="URL|FILE")
@click.option("--rate", "rate_rps", type=float, required=True, help="Requests per second to plan for.")
@click.option("--trace", type=click.Path(), help="A request trace whose joint sizes shape the two histograms.")
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
@click.option("--name", help="The workload's name [default: from-metrics].")
@click.option("--profiles", metavar="SET", help="Profile set [default: estimated/MODEL].")
@click.option("--assume-slo", is_flag=True, help="Take capacities measured without an SLO for the workload's.")
@click.option("--assume-slo-reason", help="Why that is sound, kept in the file.")
@click.option("--prices", "price_set", help="Price set (see 'melange gpus').")
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="File to write [default: standard output].")
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
    from melange.histogram import workload_from_trace
    from melange.marginals import shaped_by
    from melange.prometheus import workload_from_metrics
    from melange.report.traces import render_trace_report
    from melange.workload_file import WorkloadSpec, dump_workload, write_workload

    asked = {"grid": _grid(given), "slo": _slo(given), "model": given["model"], "rate_rps": given["rate_rps"]}
    with tempfile.TemporaryDirectory() as folder:
        path = _scraped(source, Path(folder)) if source.startswith(("http://", "https://")) else Path(source)
        result, report = workload_from_metrics(path, name=given["name"] or "from-metrics", **asked)
    if given["trace"]:
        trace, _ = workload_from_trace(given["trace"], **asked)
        result = shaped_by(result, trace)
    spec = WorkloadSpec(workload=result, profiles=_profiles(given), **_prices(given))
    comment = f"From the metrics of {source} by 'melange workload from-metrics'."
    if given["output"]:
        write_workload(given["output"], spec, comment)
    else:
        click.echo(dump_workload(spec, comment), nl=False)
    click.echo(render_trace_report(report), err=True)
    if given["trace"]:
        click.echo(f"the joint of input and output sizes is shaped by {given['trace']}", err=True)


def _scraped(url: str, folder: Path) -> Path:
    from melange.profiler.engine import get_text

    address = url.rstrip("/")
    address = address if address.endswith("/metrics") else address.removesuffix("/v1") + "/metrics"
    path = folder / "metrics"
    path.write_text(get_text(address), encoding="utf-8")
    return path
