"""The original Mélange release's config.json, planned as it is.

The file (github.com/tyler-griggs/melange-release, melange/config/example.json) holds ``gpu_info`` {name: {cost in
USD/h, tputs in requests/s}}, ``workload_distribution``, ``total_request_rate`` in requests/s and ``slice_factor``
(1 if absent). Matrices are [input][output]. As there, a bucket's rate is its share times the total rate, whatever the
shares sum to. It states neither bucket edges, model nor SLO.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from melange.arrays import FloatArray, IntArray
from melange.errors import InputError
from melange.files.documents import Document, check_schema, read_document
from melange.files.text import parse_json, read_text
from melange.files.version import __version__
from melange.plan.bucket import PlanBucket
from melange.plan.config import PlanConfig
from melange.plan.costs import HOURS_PER_MONTH, Costs
from melange.plan.demand import PlanDemand
from melange.plan.plan import Plan
from melange.planning.assemble import per_replica, utilised, with_fleet
from melange.planning.baselines import single_type_baselines
from melange.planning.limits import Limits
from melange.planning.options import SolveOptions
from melange.planning.planner import solve_checked, with_extras
from melange.slo import Slo
from melange.solver.problem import GroupLimit, Problem, Solution

_KEYS = ("gpu_info", "workload_distribution", "total_request_rate", "slice_factor")
_SUM_TOLERANCE = 1e-6
_MATRIX = {
    "type": "array",
    "minItems": 1,
    "items": {"type": "array", "minItems": 1, "items": {"type": "number", "minimum": 0}},
}
_GPU = {
    "type": "object",
    "additionalProperties": False,
    "required": ["cost", "tputs"],
    "properties": {"cost": {"type": "number", "exclusiveMinimum": 0}, "tputs": _MATRIX},
}
_SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["gpu_info", "workload_distribution", "total_request_rate"],
    "properties": {
        "gpu_info": {"type": "object", "minProperties": 1, "additionalProperties": _GPU},
        "workload_distribution": _MATRIX,
        "total_request_rate": {"type": "number", "exclusiveMinimum": 0},
        "slice_factor": {"type": "integer", "minimum": 1},
    },
}
_SEE = "see the original release's config/example.json"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReleaseConfig:
    """The file's values for the buckets with demand.

    ``cells``: (n_buckets, 2) input row and output column. ``rate_rps``: (n_buckets,). ``max_rate_rps``: (n_buckets,
    n_gpus), 0 = cannot serve the bucket. ``price_usd_per_hour``: (n_gpus,). ``share_sum`` is what all shares add up to.
    """

    file: str
    gpus: tuple[str, ...]
    price_usd_per_hour: FloatArray
    cells: IntArray
    rate_rps: FloatArray
    max_rate_rps: FloatArray
    slice_factor: int
    share_sum: float

    @property
    def labels(self) -> tuple[str, ...]:
        """``[row][column]`` of each bucket, as in the file."""
        return tuple(f"[{i}][{j}]" for i, j in self.cells)


def is_release_config(path: str | os.PathLike[str]) -> bool:
    """Whether a file is JSON with one of the original release's keys, well-formed or not; False if unreadable."""
    try:
        text = read_text(path)
    except InputError:
        return False
    return text.lstrip().startswith("{") and any(f'"{key}"' in text for key in _KEYS)


def read_release_config(path: str | os.PathLike[str]) -> ReleaseConfig:
    """Read config.json; anything wrong in it raises InputError with file, line and column."""
    parse_json(read_text(path), path)
    document = read_document(path)
    check_schema(document, _SCHEMA, see=_SEE)
    data = document.data
    shares = _matrix(document, ("workload_distribution",), data["workload_distribution"], None)
    if not shares.any():
        raise document.error(
            ("workload_distribution",), "the workload is empty: every share is 0", "give it some requests"
        )
    gpus = tuple(data["gpu_info"])
    for gpu in gpus:
        if not data["gpu_info"][gpu]["cost"] < 1e12:
            raise document.error(("gpu_info", gpu, "cost"), f"the cost of {gpu} is no price", "give dollars an hour")
    rates = [_matrix(document, ("gpu_info", g, "tputs"), data["gpu_info"][g]["tputs"], shares.shape) for g in gpus]
    cells = np.argwhere(shares > 0)
    return ReleaseConfig(
        file=document.file,
        gpus=gpus,
        price_usd_per_hour=np.array([data["gpu_info"][gpu]["cost"] for gpu in gpus], dtype=float),
        cells=cells,
        rate_rps=shares[shares > 0] * data["total_request_rate"],
        max_rate_rps=np.stack([rate[shares > 0] for rate in rates], axis=1),
        slice_factor=int(data.get("slice_factor", 1)),
        share_sum=float(shares.sum()),
    )


def _matrix(
    document: Document, path: tuple[str, ...], rows: list[list[float]], shape: tuple[int, ...] | None
) -> FloatArray:
    name = ".".join(path)
    wanted = len(rows[0]) if shape is None else shape[1]
    for i, row in enumerate(rows):
        if len(row) != wanted:
            raise document.error(
                (*path, i), f"row {i} of {name} has {len(row)} columns, not {wanted}", "one column for each output size"
            )
        for j, value in enumerate(row):
            if not abs(value) < 1e300:  # no number either; a whole number may be beyond all floats
                raise document.error((*path, i, j), f"{name}[{i}][{j}] is {value}", "give a finite number")
    if shape is not None and len(rows) != shape[0]:
        raise document.error(
            path, f"{name} has {len(rows)} rows, workload_distribution {shape[0]}", "one row for each input size"
        )
    return np.array(rows, dtype=float)


def plan_release(
    path: str | os.PathLike[str],
    options: SolveOptions | None = None,
    *,
    rate_rps: float | None = None,
    headroom: float = 0.0,
    limits: Limits | None = None,
) -> Plan:
    """The cheapest fleet for the original release's config.json.

    The file's slice factor applies unless the options give one; the plan carries the cost of continuous shares beside
    it. ``rate_rps`` scales the whole mix to that total. Bucket edges and sizes are None, and so are costs per token.
    Raises InputError for a bad file and for tied outputs, which need sizes that the file does not state.
    """
    options = options or SolveOptions()
    if options.tie_outputs:
        raise lacks(path, "routing by input size", "its buckets have no sizes")
    config = read_release_config(path)
    if not (np.isfinite(headroom) and headroom >= 0):
        raise InputError(f"headroom is {headroom}", fix="give a share from 0, for example 0.1 for 10%")
    rate = _rate(config, rate_rps)
    problem = _problem(config, rate, headroom, limits or Limits(), options)
    solution, reasons = solve_checked(problem, options)
    baselines = single_type_baselines(
        problem,
        solution,
        {gpu: {gpu} for gpu in problem.instances},
        np.zeros(problem.load.shape, dtype=bool),
        gap=options.gap,
        time_limit_s=options.time_limit_s,
    )
    scaled = rate_rps is not None
    plan = _unsolved(config, problem, solution, rate, headroom, options, reasons, _warnings(config, rate, scaled))
    used: dict[str, float] = {}
    if solution.shares is not None and solution.replicas is not None:
        keep = [config.gpus.index(gpu) for gpu in problem.configs]
        load = utilised(solution.shares, rate, config.max_rate_rps[:, keep])
        used = per_replica(problem.configs, load, solution)
    cost = solution.cost_usd_per_hour
    costs = None if cost is None else Costs(usd_per_hour=cost, usd_per_month=cost * HOURS_PER_MONTH)
    plan = with_fleet(plan, problem, solution, baselines=baselines, utilization=used, costs=costs)
    return with_extras(plan, problem, solution, options)


def lacks(path: str | os.PathLike[str], what: str, why: str) -> InputError:
    """The error for asking of a config.json what it does not state."""
    return InputError(
        f"the original release's config cannot take {what}: {why}",
        file=path,
        fix="write a workload.yaml for that (see 'melange schema workload')",
    )


def _rate(config: ReleaseConfig, rate_rps: float | None) -> FloatArray:
    """(n_buckets,) the file's rates, scaled to a total where one is asked for."""
    if rate_rps is None:
        return config.rate_rps
    if not (np.isfinite(rate_rps) and rate_rps > 0):
        raise InputError(f"rate is {rate_rps}", fix="give a positive number of requests per second")
    return np.asarray(config.rate_rps * (rate_rps / config.rate_rps.sum()))


def _problem(
    config: ReleaseConfig, rate: FloatArray, headroom: float, limits: Limits, options: SolveOptions
) -> Problem:
    with np.errstate(divide="ignore", over="ignore"):  # what is beyond all numbers cannot be served
        load = rate[:, None] * (1 + headroom) / config.max_rate_rps
    n = len(config.gpus)
    whole = Problem(
        buckets=config.labels,
        configs=config.gpus,
        instances=config.gpus,
        load=load,
        config_instance=np.arange(n),
        gpus_per_replica=np.ones(n, dtype=np.int64),
        gpus_per_instance=np.ones(n, dtype=np.int64),
        price_usd_per_hour=config.price_usd_per_hour,
        limits=_limits(config, limits),
        max_cost_usd_per_hour=limits.max_cost_usd_per_hour,
        slice_factor=config.slice_factor if options.slice_factor is None else options.slice_factor,
    )
    allowed = _allowed(config, limits)
    kept = whole.only_instances(allowed)
    if kept is None:
        raise InputError("no GPU type is left to rent", file=config.file, fix="check --only and --exclude")
    return whole if len(allowed) == n else kept


def _limits(config: ReleaseConfig, limits: Limits) -> tuple[GroupLimit, ...]:
    _check_names(config, limits.types)
    return tuple(
        GroupLimit(name=name, weights={name: 1}, minimum=limit.minimum, maximum=limit.maximum)
        for name, limit in limits.types.items()
    )


def _allowed(config: ReleaseConfig, limits: Limits) -> set[str]:
    _check_names(config, (*limits.only, *limits.exclude))
    return {gpu for gpu in config.gpus if (not limits.only or gpu in limits.only) and gpu not in limits.exclude}


def _check_names(config: ReleaseConfig, names: Iterable[str]) -> None:
    for name in names:
        if name not in config.gpus:
            near = difflib.get_close_matches(name, config.gpus, n=1, cutoff=0.4)
            fix = f"did you mean {near[0]!r}?" if near else f"gpu_info holds {', '.join(config.gpus)}"
            raise InputError(f"{name!r} is not in gpu_info", file=config.file, fix=fix)


def _unsolved(
    config: ReleaseConfig,
    problem: Problem,
    solution: Solution,
    rate: FloatArray,
    headroom: float,
    options: SolveOptions,
    reasons: tuple[str, ...],
    warnings: tuple[str, ...],
) -> Plan:
    """The plan's inputs and shares, before the fleet is filled in."""
    return Plan(
        status=solution.status,
        slo=Slo(),
        workload=_demand(config, rate),
        configs={gpu: _config(config, gpu, headroom) for gpu in problem.configs},
        buckets=_buckets(config, problem, solution, rate),
        headroom=headroom,
        slice_factor=problem.slice_factor,
        reasons=reasons,
        warnings=warnings,
        provenance={
            "melange_version": __version__,
            "workload_file": config.file,
            "format": "config.json of the original Mélange release",
            "gap_asked": options.gap,
            "time_limit_s": options.time_limit_s,
        },
    )


def _warnings(config: ReleaseConfig, rate: FloatArray, scaled: bool) -> tuple[str, ...]:
    rows = ["the config states no SLO: its throughputs are taken as they are"]
    if abs(config.share_sum - 1) > _SUM_TOLERANCE and not scaled:
        rows.append(
            f"the shares of workload_distribution sum to {config.share_sum:g}, not 1: each is multiplied by "
            f"total_request_rate as in the original release, {rate.sum():g} requests/s in all (--rate sets the total)"
        )
    return tuple(rows)


def _demand(config: ReleaseConfig, rate: FloatArray) -> PlanDemand:
    return PlanDemand(
        name=Path(config.file).stem,
        rate_rps=float(rate.sum()),
        provenance={"cells": config.cells.tolist()},
    )


def _config(config: ReleaseConfig, gpu: str, headroom: float) -> PlanConfig:
    return PlanConfig(
        gpu=gpu,
        instance=gpu,
        instance_key=gpu,
        gpus_per_instance=1,
        tp=1,
        precision="unspecified",
        engine="unspecified",
        model=None,
        price_usd_per_hour=float(config.price_usd_per_hour[config.gpus.index(gpu)]),
        headroom=headroom,
    )


def _buckets(config: ReleaseConfig, problem: Problem, solution: Solution, rate: FloatArray) -> tuple[PlanBucket, ...]:
    shares = np.zeros(problem.load.shape) if solution.shares is None else solution.shares
    columns = [config.gpus.index(gpu) for gpu in problem.configs]
    return tuple(
        PlanBucket(
            input_tokens_max=None,
            output_tokens_max=None,
            rate_rps=float(rate[b]),
            shares={gpu: float(s) for gpu, s in zip(problem.configs, shares[b], strict=True) if s > 0},
            max_rate_rps={
                gpu: float(config.max_rate_rps[b, c]) for gpu, c in zip(problem.configs, columns, strict=True)
            },
        )
        for b in range(len(rate))
    )
