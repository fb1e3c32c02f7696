"""What the performance model says of a public measurement: its engine, modelled, under the load of the measurement."""

from __future__ import annotations

import math
from dataclasses import dataclass

from melange.arrays import five_digits
from melange.catalog.hardware import Catalog, load_catalog
from melange.measurements.public import PublicPoint
from melange.perfmodel.calibration import Calibration
from melange.perfmodel.estimate import steady_state
from melange.perfmodel.hardware import ModelledEngine
from melange.perfmodel.load import Load
from melange.serving.engine_args import settings_from_args

FEW_ROUNDS = 4  # of requests for each client: a closed loop of fewer is mostly its fill and its drain


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What can be compared of a load: throughput of all GPUs, and means of latencies; None where nothing is said."""

    output_tokens_per_s: float | None = None
    ttft_s: float | None = None
    tpot_decode_s: float | None = None


def engine_of(point: PublicPoint, catalog: Catalog | None = None) -> ModelledEngine:
    """The engine that a point was measured on, under the arguments that its source states."""
    catalog = catalog or load_catalog()
    gpu = catalog.gpu(point.gpu)
    model = catalog.model(point.model)
    settings = settings_from_args(
        point.engine_args,
        gpu=gpu,
        engine=point.engine,
        version=point.likely_version,
        context_tokens=model.max_context_tokens,
    )
    return ModelledEngine(
        model=model,
        gpu=gpu,
        tp=point.tp,
        precision=point.precision,
        settings=settings,
        kv_dtype=point.kv_dtype,
        engine_version=point.likely_version,
    )


def load_of(point: PublicPoint) -> Load:
    """A point's load in steady state: a batch counts as so many clients, a burst as the highest rate."""
    if point.load in ("batch", "closed"):
        return Load(concurrency=point.concurrency)
    return Load(rate_rps=point.rate_rps) if point.load == "open" else Load()


def measured_figures(point: PublicPoint) -> Figures:
    """What a point measured that a steady state can be held against: of batches, bursts and short runs, throughput."""
    throughput = point.output_tokens_per_s
    is_short = point.load == "closed" and point.requests < FEW_ROUNDS * (point.concurrency or 0.0)
    if point.load in ("batch", "burst") or is_short:
        return Figures(output_tokens_per_s=throughput)
    return Figures(output_tokens_per_s=throughput, ttft_s=point.ttft_s, tpot_decode_s=point.tpot_s)


def predicted_figures(
    point: PublicPoint, *, calibration: Calibration | None = None, catalog: Catalog | None = None
) -> Figures:
    """The same of the model, in steady state (a run's fill and drain are left out); no TTFT at or past saturation."""
    efficiencies = None if calibration is None else calibration.efficiencies_of(point.gpu)
    state = steady_state(engine_of(point, catalog), point.input_tokens, point.output_tokens, efficiencies=efficiencies)
    load = load_of(point)
    found, saturation = load.of(state), float(state.saturation_rps)
    rate = float(found.rate_rps) if load.kind == "closed" else min(load.rate_rps or saturation, saturation)
    ttft = float(found.ttft_s)
    return Figures(
        output_tokens_per_s=five_digits(rate * point.output_tokens),
        ttft_s=five_digits(ttft) if math.isfinite(ttft) else None,
        tpot_decode_s=five_digits(float(found.tpot_decode_s)),
    )
