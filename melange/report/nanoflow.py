"""NanoFlow's cost analysis and searched pipelines, told to people and machines."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from melange.report.tables import rendered, table

if TYPE_CHECKING:  # the search loads a solver that an analysis does not need
    from melange.nanoflow.costs import ServiceAnalysis
    from melange.nanoflow.pipeline_search import PipelineSearch

SCHEMA_VERSION = 1


def analysis_dict(analysis: ServiceAnalysis, gpu: str) -> dict[str, Any]:
    """Plain values; times in seconds of one iteration over all layers, at the device's peak rates."""
    layers = analysis.model.layers
    return {
        "schema_version": SCHEMA_VERSION,
        "model": analysis.model.name,
        "gpu": gpu,
        "gpus": analysis.device.gpus,
        "precision": analysis.precision,
        "requests_that_fit": analysis.requests,
        "batch": {
            "tokens": analysis.batch.tokens,
            "decode_tokens": analysis.batch.decode_tokens,
            "prefill_tokens": analysis.batch.prefill_tokens,
            "context_tokens": analysis.batch.context_tokens,
        },
        "t_comp_s": analysis.t_comp_s,
        "t_mem_s": analysis.t_mem_s,
        "t_net_s": analysis.t_net_s,
        "t_r": analysis.t_r,
        "bound": analysis.bound,
        "optimal_tokens_per_s_per_gpu": analysis.optimal_tokens_per_s_per_gpu,
        "attainable_tokens_per_s_per_gpu": analysis.attainable_tokens_per_s_per_gpu,
        "operations": [
            {
                "operation": cost.kind,
                "gflop": cost.flop * layers / 1e9,
                "gbyte": cost.memory_bytes * layers / 1e9,
                "network_gbyte": cost.network_bytes * layers / 1e9,
                **{f"t_{name}_s": layers * value for name, value in cost.times_s(analysis.device).items()},
            }
            for cost in analysis.operations
        ],
    }


def render_analysis(analysis: ServiceAnalysis, gpu: str, output: str) -> str:
    """``table`` for people, ``json`` or ``csv`` (the operations) for machines."""
    plain = analysis_dict(analysis, gpu)
    if output == "json":
        return json.dumps(plain, indent=2)
    if output == "csv":
        rows = plain["operations"]
        return "\n".join([",".join(rows[0]), *(",".join(_shown(value) for value in row.values()) for row in rows)])
    batch = analysis.batch
    title = f"{analysis.model.name} on {analysis.device.gpus}x{gpu} ({analysis.precision})"
    summary = [
        ("requests that fit in memory", f"{analysis.requests:,.1f}"),
        ("dense batch, tokens", f"{batch.tokens:,.0f}"),
        ("  decode / prefill", f"{batch.decode_tokens:,.0f} / {batch.prefill_tokens:,.0f}"),
        ("T_comp, ms", f"{1000 * analysis.t_comp_s:.2f}"),
        ("T_mem, ms", f"{1000 * analysis.t_mem_s:.2f}"),
        ("T_net, ms", f"{1000 * analysis.t_net_s:.2f}"),
        ("T_R = T_mem / T_comp", f"{analysis.t_r:.2f}"),
        ("bound by", analysis.bound),
        ("optimal tokens/s/GPU (GEMMs alone)", f"{analysis.optimal_tokens_per_s_per_gpu:,.0f}"),
        ("attainable with what binds", f"{analysis.attainable_tokens_per_s_per_gpu:,.0f}"),
    ]
    rows = [_operation_row(row) for row in plain["operations"]]
    columns = ("operation", "GFLOP", "GB", "network GB", "t_comp ms", "t_mem ms", "t_net ms", "bound by")
    note = "Times at peak rates, all layers, one iteration. Upper bounds of throughput, not predictions of an engine."
    return rendered(table(title, ("service", ""), summary), table("operations", columns, rows), note)


def render_search(search: PipelineSearch, output: str) -> str:
    """``table`` for people, ``json`` for machines (the pipeline and what each split came to)."""
    if output == "json":
        return json.dumps(search_dict(search), indent=2)
    pipeline = search.pipeline
    assert pipeline.unsplit_s is not None
    assert pipeline.stage1_s is not None
    assert pipeline.stage2_s is not None
    title = f"{pipeline.model} on {pipeline.tp}x{pipeline.gpu}, {pipeline.batch_tokens} tokens, "
    title += f"{pipeline.decode_tokens} of them decode at context {pipeline.context_tokens:g} (predicted)"
    one = len(pipeline.splits) == 1
    proof = "proven" if search.proven else f"gap {100 * (pipeline.gap or 0):.2g}%"
    summary = [
        ("one batch, operation by operation", f"{1000 * pipeline.unsplit_s:.3f}", ""),
        ("stage I, no interference", f"{1000 * pipeline.stage1_s:.3f}", f"{search.stage1_wall_s:.2f} s"),
        ("stage II, with interference", f"{1000 * pipeline.stage2_s:.3f}", f"{search.stage2_wall_s:.2f} s, {proof}"),
    ]
    answer = "one batch: no split is faster" if one else f"nano-batches end at {', '.join(map(str, pipeline.splits))}"
    answer += f"; predicted {search.predicted_speedup:.2f}x one batch, time limit {search.time_limit_s:g} s"
    rows = [
        (
            operation.name,
            operation.stream,
            f"{operation.share:.2g}",
            "next" if operation.layer_offset else "this",
            "-" if operation.start_s is None else f"{1000 * operation.start_s:.3f}",
            "-" if operation.duration_s is None else f"{1000 * operation.duration_s:.3f}",
        )
        for operation in pipeline.operations
    ]
    columns = ("operation", "stream", "share", "layer", "start ms", "duration ms")
    sources = [f"{name}: {pipeline.provenance[name]}" for name in ("times", "interference")]
    return rendered(
        table(title, ("period of one layer", "ms", "solved in"), summary),
        answer,
        *([] if one else [table("pipeline", columns, rows, left=2)]),
        *sources,
    )


def search_dict(search: PipelineSearch) -> dict[str, Any]:
    """Plain values: the pipeline, and per split the stages that were run with their proven bounds."""
    return {
        "schema_version": SCHEMA_VERSION,
        "pipeline": search.pipeline.to_dict(),
        "predicted_speedup": search.predicted_speedup,
        "proven": search.proven,
        "time_limit_s": search.time_limit_s,
        "stage1_wall_s": search.stage1_wall_s,
        "stage2_wall_s": search.stage2_wall_s,
        "splits": [
            {
                "splits": list(trial.splits),
                "least_period_s": trial.graph.least_period_s(),
                **{
                    name: {
                        "period_s": outcome.period_s,
                        "bound_s": outcome.bound_s,
                        "found": outcome.schedule is not None,
                    }
                    for name, outcome in (("stage1", trial.stage1), ("stage2", trial.stage2))
                    if outcome is not None
                },
            }
            for trial in search.trials
        ],
    }


def _operation_row(row: dict[str, Any]) -> tuple[str, ...]:
    times = {name: row[f"t_{name}_s"] for name in ("compute", "memory", "network")}
    return (
        row["operation"],
        f"{row['gflop']:,.1f}",
        f"{row['gbyte']:,.1f}",
        f"{row['network_gbyte']:,.1f}",
        *(f"{1000 * value:.2f}" for value in times.values()),
        max(times, key=lambda name: times[name]),
    )


def _shown(value: object) -> str:
    return f"{value:.9g}" if isinstance(value, float) else str(value)
