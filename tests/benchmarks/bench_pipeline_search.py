"""How fast pipelines are searched; beside the same programs without their valid inequalities.

Run: python tests/benchmarks/bench_pipeline_search.py [--limit 60]

The baseline is the plain cyclic formulation (period, starts, orders, overlaps, share choices) of stage II.
"""

from __future__ import annotations

import argparse
from unittest import mock

from melange.catalog.hardware import load_catalog
from melange.files.shipped import data_path
from melange.nanoflow import pipeline_milp
from melange.nanoflow.modelled_times import modelled_times
from melange.nanoflow.operation_times import OperationTimes, read_operation_times
from melange.nanoflow.pipeline_search import PipelineSearch, search_pipeline
from melange.perfmodel.interference import Interference, read_interference


def times_of(model: str, gpu: str, tp: int, context_tokens: float, prompt_tokens: float) -> OperationTimes:
    catalog = load_catalog()
    return modelled_times(
        catalog.model(model), catalog.gpu(gpu), tp=tp, context_tokens=context_tokens, prompt_tokens=prompt_tokens
    )


def told(found: PipelineSearch) -> str:
    proof = "proven" if found.proven else f"gap {100 * (found.pipeline.gap or 0):.1f}%"
    period_ms = 1000 * (found.pipeline.stage2_s or 0)
    return f"{found.stage1_wall_s:6.2f} + {found.stage2_wall_s:6.2f} s, {period_ms:.3f} ms, {proof}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=float, default=60.0, help="seconds a search may take")
    limit_s = parser.parse_args().limit
    measured = read_operation_times(data_path("profiles/nanoflow/a100-llama-3-8b-times.yaml"))
    tables: dict[str, Interference] = {
        name: read_interference(data_path(f"profiles/nanoflow/interference-{name}.yaml"))
        for name in ("paper", "authors")
    }
    cases = [
        (f"LLaMA-3-8B on A100, measured times, {name} table", measured, table, 1024, 384, every)
        for name, table in tables.items()
        for every in (False, True)
    ]
    h100 = times_of("llama-3-8b", "H100", 1, 1280, 1024)
    cases.append(("LLaMA-3-8B on H100, modelled", h100, tables["authors"], 2048, 683, False))
    cases.append(
        (
            "LLaMA-2-70B on 8xA100, modelled",
            times_of("llama-2-70b", "A100-80GB", 8, 1024, 512),
            tables["paper"],
            2048,
            1365,
            False,
        )
    )
    for label, times, table, batch, decode, every in cases:
        options = {"batch_tokens": batch, "decode_tokens": decode, "every_split": every, "time_limit_s": limit_s}
        found = search_pipeline(times, table, **options)
        with mock.patch.object(pipeline_milp._Model, "_bound", return_value=None):
            plain = search_pipeline(times, table, **options)
        ratio = (plain.stage1_wall_s + plain.stage2_wall_s) / (found.stage1_wall_s + found.stage2_wall_s)
        print(f"{label}{', every split' if every else ''}")
        print(f"  search    {told(found)}")
        print(f"  baseline  {told(plain)}; {ratio:.1f} times as long", flush=True)


if __name__ == "__main__":
    main()
