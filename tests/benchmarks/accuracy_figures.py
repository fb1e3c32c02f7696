"""How good the performance model is on tables that it was not fitted to: the figures of ``docs/accuracy.md``.

Everything here fits on some cells of the published Llama-2-7b table (A10G and A100 unless said otherwise, inputs up to
2000 tokens) and is judged on others. No parameter is fitted to the two heatmaps of the paper.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from melange.arrays import BoolArray
from melange.capacity.profile import Profile, profile_from, read_profile_set
from melange.catalog.hardware import Catalog, load_catalog
from melange.errors import InputError
from melange.files.text import read_text
from melange.measurements.measurement import Measurement
from melange.perfmodel.calibrate import Group, fit, group_points, points_of, predict, split
from melange.perfmodel.calibration import Calibration
from melange.perfmodel.estimate import max_rates_rps
from melange.perfmodel.hardware import ModelledEngine
from melange.perfmodel.profile import estimated_table
from melange.planning.planner import prepare
from melange.planning.spec import WorkloadSpec
from melange.planning.workload_file import load_workload
from melange.serving.efficiencies import Efficiencies
from melange.serving.engine_settings import VLLM_0_2
from melange.slo import Slo
from melange.solver.search import solve

Size = tuple[float, float]  # input and output tokens

PUBLISHED_SET = "melange-2024/llama-2-7b"
HEATMAPS = ("heatmap_a100_v_a10g.csv", "heatmap_2xh100_v_2xa100_llama2_70b.csv")
FITTED_GPUS = ("A10G", "A100-80GB")
PRICES_USD_PER_HOUR = {"L4": 0.70, "A10G": 1.01, "A100-80GB": 3.67, "H100": 7.516}  # the paper's table 1
RATES_RPS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
SHORT_TOKENS = 2000
CLOSE = 0.05  # a choice within 5% of the best T/$ is a good one; a margin of 5% or less decides nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """A figure over seeded splits: its median, and the least and greatest."""

    median: float
    least: float
    greatest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(median=float(np.median(values)), least=float(min(values)), greatest=float(max(values)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """Every figure of the report. Errors and regrets are fractions.

    ``regret``: per rate, (share by which the fleet is dearer) for each way of getting a profile. ``left_out``: per GPU
    (median error up to 2000 input tokens, above). ``chosen_unseen`` and ``sides_unseen``: the shares among those sizes
    of which a split fitted no cell, all splits together. ``sides_in_table``: cells of the A10G v A100 heatmap whose
    side the published table has too. ``measured``: k-fold errors on load points given by the user.
    """

    splits: int
    regret_splits: int
    regret: Mapping[str, Mapping[float, Spread]]
    held_out: Spread
    unseen: Mapping[str, Spread]
    left_out: Mapping[str, tuple[float, float]]
    chosen: Spread
    chosen_unseen: float
    chosen_cells: int
    sides: Spread
    sides_unseen: float
    sides_in_table: tuple[int, int]
    side_cells: int
    sides_70b: Spread
    sides_70b_cells: int
    prior_errors: Mapping[str, float]
    prior_chosen: float
    prior_sides: float
    prior_sides_70b: float
    measured: Mapping[str, Mapping[str, object]]


def published_groups(catalog: Catalog) -> tuple[Group, ...]:
    """The published table, one group per GPU."""
    points = [point for file in read_profile_set(PUBLISHED_SET) for point in points_of(file)]
    return group_points(points, catalog=catalog)


def measure_accuracy(
    reference: str | os.PathLike[str],
    *,
    splits: int = 20,
    regret_splits: int | None = None,
    measured: Mapping[str, Calibration] | None = None,
    catalog: Catalog | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> Accuracy:
    """Compute every figure; ``reference`` holds the paper's heatmaps, ``measured`` calibrations on own load points.

    ``regret_splits`` limits the splits over which regret is taken (None: all of them).
    """
    catalog = catalog or load_catalog()
    sides, sides_70b = _heatmaps(Path(reference))
    groups = published_groups(catalog)
    short = [part for group in groups if (part := _only(group, lambda p: p.input_tokens <= SHORT_TOKENS)) is not None]
    fitted = [group for group in short if group.modelled.gpu.name in FITTED_GPUS]
    unseen = [group for group in short if group.modelled.gpu.name not in FITTED_GPUS]
    halves, held, untouched = [], [], []
    for seed in range(splits):
        progress(f"split {seed + 1} of {splits}")
        kept, out = split(fitted, _half(sum(len(g.points) for g in fitted), seed))
        halves.append(fit(kept).efficiencies)
        held.append(_median_error(out, halves[-1]))
        untouched.append(_sizes(fitted) - _sizes(kept))
    prior = Efficiencies()
    chosen = [chosen_well(short, e) for e in halves]
    right = [a100_sides_right(sides, e, catalog) for e in halves]
    progress("decision regret")
    return Accuracy(
        splits=splits,
        regret_splits=len(halves[:regret_splits]),
        regret={
            "calibrated on half of the A10G and A100 cells": decision_regret(halves[:regret_splits], catalog),
            "priors only, nothing measured": decision_regret([prior], catalog),
        },
        held_out=Spread.of(held),
        unseen={g.modelled.gpu.name: Spread.of([_median_error([g], e) for e in halves]) for g in unseen},
        left_out=_leave_one_out(groups, short),
        chosen=Spread.of([_share(each) for each in chosen]),
        chosen_unseen=_share_among(chosen, untouched),
        chosen_cells=len(chosen[0]),
        sides=Spread.of([_share(each) for each in right]),
        sides_unseen=_share_among(right, untouched),
        sides_in_table=_sides_in_table(sides, short),
        side_cells=len(right[0]),
        sides_70b=Spread.of([h100_side_share(sides_70b, e, catalog) for e in halves]),
        sides_70b_cells=len(sides_70b),
        prior_errors={g.modelled.gpu.name: _median_error([g], prior) for g in short},
        prior_chosen=_share(chosen_well(short, prior)),
        prior_sides=_share(a100_sides_right(sides, prior, catalog)),
        prior_sides_70b=h100_side_share(sides_70b, prior, catalog),
        measured={name: dict(calibration.errors) for name, calibration in (measured or {}).items()},
    )


def _sizes(groups: Sequence[Group]) -> set[Size]:
    return {(point.input_tokens, point.output_tokens) for group in groups for point in group.points}


def _share(good: Mapping[Size, bool]) -> float:
    return float(np.mean(list(good.values())))


def _share_among(good: Sequence[Mapping[Size, bool]], sizes: Sequence[set[Size]]) -> float:
    """The share of good ones at the sizes that each split names, all splits together; NaN when there are none."""
    flat = [ok for each, chosen in zip(good, sizes, strict=True) for size, ok in each.items() if size in chosen]
    return float(np.mean(flat)) if flat else np.nan


def _heatmaps(folder: Path) -> tuple[list[HeatmapCell], list[HeatmapCell]]:
    missing = [name for name in HEATMAPS if not (folder / name).is_file()]
    if missing:
        raise InputError(
            f"{folder} does not hold {' and '.join(missing)}",
            fix="give the folder with the paper's heatmaps, which do not ship with Mélange",
        )
    first, second = (read_heatmap(folder / name) for name in HEATMAPS)
    return first, second


def _sides_in_table(cells: Sequence[HeatmapCell], groups: Sequence[Group]) -> tuple[int, int]:
    """How many of the A10G v A100 cells have the published table's better side, and how many there are."""
    value = {
        group.modelled.gpu.name: {
            (p.input_tokens, p.output_tokens): p.achieved_rps / PRICES_USD_PER_HOUR[group.modelled.gpu.name]
            for p in group.points
        }
        for group in groups
    }
    both = [(cell, (cell.input_tokens, cell.output_tokens)) for cell in cells]
    known = [(cell.best, size) for cell, size in both if size in value["A10G"] and size in value["A100-80GB"]]
    same = [best == ("A100" if value["A100-80GB"][size] > value["A10G"][size] else "A10G") for best, size in known]
    return sum(same), len(same)


def _only(group: Group, keep: Callable[[Measurement], bool]) -> Group | None:
    kept, _ = split([group], np.array([not keep(point) for point in group.points]))
    return kept[0] if kept else None


def _half(count: int, seed: int) -> BoolArray:
    held = np.zeros(count, dtype=bool)
    held[np.random.default_rng(seed).permutation(count)[: count // 2]] = True
    return held


def _median_error(groups: Sequence[Group], efficiencies: Efficiencies) -> float:
    errors = np.concatenate([predict(group, efficiencies).headline() for group in groups])
    return float(np.median(np.abs(np.expm1(errors))))


def _leave_one_out(groups: Sequence[Group], short: Sequence[Group]) -> dict[str, tuple[float, float]]:
    """Per GPU the median errors at and above 2000 input tokens when the other GPUs' short cells were fitted."""
    result = {}
    for group in groups:
        gpu = group.modelled.gpu.name
        efficiencies = fit([other for other in short if other.modelled.gpu.name != gpu]).efficiencies
        errors = np.abs(np.expm1(predict(group, efficiencies).headline()))
        above = group.input_tokens > SHORT_TOKENS
        result[gpu] = (float(np.median(errors[~above])), float(np.median(errors[above])) if above.any() else np.nan)
    return result


def chosen_well(groups: Sequence[Group], efficiencies: Efficiencies) -> dict[Size, bool]:
    """Per size whether the GPU with the best predicted T/$ is within 5% of the best measured T/$."""
    price = np.array([PRICES_USD_PER_HOUR[group.modelled.gpu.name] for group in groups])
    cells = sorted({(p.input_tokens, p.output_tokens) for p in groups[0].points})
    where = [{(p.input_tokens, p.output_tokens): n for n, p in enumerate(group.points)} for group in groups]
    measured = np.array([[g.rate_rps[index[cell]] for cell in cells] for g, index in zip(groups, where, strict=True)])
    predicted = np.array(
        [
            [g.rate_rps[index[cell]] * np.exp(error[index[cell]]) for cell in cells]
            for g, index in zip(groups, where, strict=True)
            for error in (predict(g, efficiencies).headline(),)
        ]
    )
    value = measured / price[:, None]
    choice = np.argmax(predicted / price[:, None], axis=0)
    good = value[choice, np.arange(len(cells))] >= (1 - CLOSE) * value.max(axis=0)
    return dict(zip(cells, good.tolist(), strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class HeatmapCell:
    """One cell of a heatmap: the better side by T/$, and by how much (a fraction)."""

    input_tokens: float
    output_tokens: float
    best: str
    margin: float


def read_heatmap(file: str | os.PathLike[str]) -> list[HeatmapCell]:
    """Read a heatmap CSV (input, output, best, percent more T/$ than the other)."""
    try:
        return [
            HeatmapCell(
                input_tokens=float(row["input"]),
                output_tokens=float(row["output"]),
                best=row["best"],
                margin=float(row["pct_more_T_per_dollar_than_other"]) / 100,
            )
            for row in csv.DictReader(read_text(file).splitlines())
        ]
    except (KeyError, ValueError) as error:
        raise InputError(f"not a heatmap: {error}", file=file, fix="give input, output, best and the margin") from error


def _sides_right(
    cells: Sequence[HeatmapCell], sides: Mapping[str, ModelledEngine], gpus: int, efficiencies: Efficiencies
) -> dict[Size, bool]:
    inputs, outputs = (np.array([getattr(c, f"{axis}_tokens") for c in cells]) for axis in ("input", "output"))
    value = [
        max_rates_rps(modelled, Slo(), inputs, outputs, efficiencies=efficiencies)
        / (gpus * PRICES_USD_PER_HOUR[modelled.gpu.name])
        for modelled in sides.values()
    ]
    names = list(sides)
    return {
        (cell.input_tokens, cell.output_tokens): names[k] == cell.best
        for k, cell in zip(np.argmax(value, axis=0), cells, strict=True)
    }


def _published(model: str, gpu: str, tp: int, catalog: Catalog) -> ModelledEngine:
    return ModelledEngine(model=catalog.model(model), gpu=catalog.gpu(gpu), tp=tp, settings=VLLM_0_2)


def a100_sides_right(cells: Sequence[HeatmapCell], efficiencies: Efficiencies, catalog: Catalog) -> dict[Size, bool]:
    """Per size of the A10G v A100 cells with a margin above 5%: is the better side predicted (Llama-2-7b)?"""
    sides = {n: _published("llama-2-7b", g, 1, catalog) for n, g in (("A10G", "A10G"), ("A100", "A100-80GB"))}
    return _sides_right([cell for cell in cells if cell.margin > CLOSE], sides, 1, efficiencies)


def h100_side_share(cells: Sequence[HeatmapCell], efficiencies: Efficiencies, catalog: Catalog) -> float:
    """Share of the 2xH100 v 2xA100 cells whose better side is predicted (Llama-2-70b)."""
    sides = {n: _published("llama-2-70b", g, 2, catalog) for n, g in (("2xA100", "A100-80GB"), ("2xH100", "H100"))}
    return _share(_sides_right(cells, sides, 2, efficiencies))


def decision_regret(candidates: Sequence[Efficiencies], catalog: Catalog) -> dict[float, Spread]:
    """Per request rate over Arena, by how much fleets chosen on estimates are dearer than the best; over candidates.

    Both problems are without an SLO, like the published table. What the estimates chose is rented; where the published
    rates say that it does not suffice, the cheapest addition is rented too.
    """
    spec = load_workload("arena-120ms")
    spec = replace(spec, workload=replace(spec.workload, slo=Slo()))
    points = [point for file in read_profile_set(PUBLISHED_SET) for point in points_of(file)]
    published = profile_from([p for p in points if p.input_tokens <= SHORT_TOKENS], Slo())
    profiles = [_estimated_like(published, efficiencies, catalog) for efficiencies in candidates]
    result = {}
    for rate in RATES_RPS:
        best, _ = _cheapest(spec, published, rate, {})
        found = []
        for profile in profiles:
            _, fleet = _cheapest(spec, profile, rate, {})
            cost, _ = _cheapest(spec, published, rate, fleet)
            found.append(cost / best - 1)
        result[rate] = Spread.of(found)
    return result


def _estimated_like(published: Profile, efficiencies: Efficiencies, catalog: Catalog) -> Profile:
    """The published profile's configurations and sizes with the model's saturation rates."""
    calibration = Calibration(efficiencies=efficiencies, settings=VLLM_0_2)
    configs = {
        key: estimated_table(
            _published(key.model, key.gpu, key.tp, catalog),
            Slo(),
            table.input_tokens.tolist(),
            table.output_tokens.tolist(),
            calibration=calibration,
        )
        for key, table in published.configs.items()
    }
    return Profile(slo=Slo(), configs=configs)


def _cheapest(
    spec: WorkloadSpec, profile: Profile, rate_rps: float, rented: Mapping[str, int]
) -> tuple[float, dict[str, int]]:
    """(USD per hour, instances by name) of the cheapest fleet that has at least what is rented."""
    case = prepare(spec.with_rate(rate_rps).limited(minimum=dict(rented)), None, profile)
    solution = solve(case.problem)
    if solution.cost_usd_per_hour is None or solution.instances is None:
        raise InputError(f"the Arena workload at {rate_rps:g} requests/s has no fleet", fix="check the profile")
    counts = zip(case.problem.instances, solution.instances.tolist(), strict=True)
    return solution.cost_usd_per_hour, {name: count for name, count in counts if count}
