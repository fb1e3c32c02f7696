"""How fast estimates are: a paper grid for one configuration and SLO, and for 100 configurations.

Run: python tests/benchmarks/bench_perfmodel.py

Times are medians of processor time; each is shown beside the time that it is meant to stay under. Nothing is asserted.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable

from melange.catalog.hardware import load_catalog
from melange.perfmodel.calibrate import calibrate, points_of, read_sets
from melange.perfmodel.estimate import max_rates_rps, rates_with_band
from melange.perfmodel.hardware import ModelledEngine, missing_memory_gib
from melange.perfmodel.sequences import best_sequences
from melange.slo import Slo
from melange.workload.sizes import SizeGrid

SLOS = {
    "mean decode TPOT 40 ms": Slo(tpot_s=0.04, tpot_definition="decode"),
    "mean TPOT 120 ms with the wait": Slo(tpot_s=0.12, tpot_definition="e2e_per_token"),
    "99% jointly TPOT 50 ms, TTFT 1 s": Slo(tpot_s=0.05, tpot_definition="decode", ttft_s=1.0, attainment=0.99),
}


def seconds(action: Callable[[], object], repeats: int) -> float:
    """Median processor seconds of an action, which other processes disturb less than the clock on the wall."""
    taken = []
    for _ in range(repeats):
        start = time.process_time()
        action()
        taken.append(time.process_time() - start)
    return statistics.median(taken)


def row(what: str, taken_s: float, limit_s: float | None = None) -> None:
    """One line of the report."""
    limit = "" if limit_s is None else f"   {taken_s / limit_s:5.2f} of {1000 * limit_s:g} ms"
    print(f"{what:60s} {1000 * taken_s:9.1f} ms{limit}")


def modelled_engines(count: int) -> list[ModelledEngine]:
    """The first so many configurations of the catalog that fit."""
    catalog = load_catalog()
    found = []
    pairs = itertools.product(catalog.models.values(), catalog.gpus.values(), ("fp16", "fp8"), (1, 2, 4, 8))
    for model, gpu, precision, tp in pairs:
        modelled = ModelledEngine(model=model, gpu=gpu, precision=precision, tp=tp)
        if not missing_memory_gib(modelled):
            found.append(modelled)
        if len(found) == count:
            break
    return found


def main() -> None:
    """Print the report."""
    catalog = load_catalog()
    inputs, outputs = SizeGrid.paper().upper_edges()
    one = ModelledEngine(model=catalog.model("llama-3.1-8b"), gpu=catalog.gpu("H100"))
    for name, slo in SLOS.items():
        row(f"10 x 6 grid, one config, {name}", seconds(lambda s=slo: max_rates_rps(one, s, inputs, outputs), 20), 0.01)
        row(
            "   with a free number of requests at once",
            seconds(lambda s=slo: best_sequences(one, s, inputs, outputs), 5),
        )
    slo = SLOS["mean decode TPOT 40 ms"]
    row("the same with its 80% band", seconds(lambda: rates_with_band(one, slo, inputs, outputs), 5))
    hundred = modelled_engines(100)

    def all_of_them() -> None:
        for modelled in hundred:
            max_rates_rps(modelled, slo, inputs, outputs)

    row(f"10 x 6 grid, {len(hundred)} configs", seconds(all_of_them, 3), 1.0)
    points = [point for file in read_sets(["melange-2024/llama-2-7b"]) for point in points_of(file)]
    row("calibrate on 186 cells, 5 folds", seconds(lambda: calibrate(points, name="all"), 1))


if __name__ == "__main__":
    main()
