"""The clock of each of a plan's configs: the performance model, calibrated to the rates that the plan was solved with.

Efficiencies come from the plan's estimate, or are fitted per config to its table (only what throughput identifies; the
rest keeps its prior). A last factor on all times makes the simulated replica carry the plan's mix of sizes at the rate
that the plan believes: a table without an SLO is matched at saturation as the compiled scheduler plays it, a table
under an SLO by the steady state's highest rate under it. What single sizes are still off is reported as ``errors``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melange.catalog import Gpu, Model
from melange.errors import InputError
from melange.perfmodel.calibrate import Group, fit
from melange.perfmodel.clock import StepClock
from melange.perfmodel.efficiencies import Efficiencies
from melange.perfmodel.engine import EngineSettings, default_settings
from melange.perfmodel.hardware import Deployment, step_clock
from melange.perfmodel.steady import SteadyState
from melange.plan import Plan, PlanConfig
from melange.simulator.saturation import saturation_rps
from melange.slo import Slo

FloatArray = NDArray[np.float64]

LEAST_WEIGHT = 1e-3
"""Sizes with less than this share of a config's load are left out of the match."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigClock:
    """One config's calibrated clock, and how well it reproduces the plan's rates.

    ``time_scale`` is the last factor on all times. ``matched`` says what was matched: ``saturation`` or ``slo``.
    ``errors``: simulated rate / the plan's rate - 1 at each size that was compared, weighted by ``weights``.
    ``saturated_tpot_s``: decode TPOT at saturation, mean over the mix; under the SLO's TPOT the table's rates are
    compatible with it.
    """

    config: str
    clock: StepClock
    max_request_tokens: int
    time_scale: float
    matched: str
    errors: FloatArray
    weights: FloatArray
    saturated_tpot_s: float

    @property
    def median_error(self) -> float:
        """Median of the absolute errors."""
        return float(np.median(np.abs(self.errors)))

    @property
    def worst_error(self) -> float:
        return float(np.abs(self.errors).max())

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready summary."""
        return {
            "time_scale": self.time_scale,
            "matched": self.matched,
            "sizes": len(self.errors),
            "median_error": self.median_error,
            "worst_error": self.worst_error,
            "saturated_tpot_s": self.saturated_tpot_s,
            "engine": {
                "max_num_seqs": self.clock.max_num_seqs,
                "max_batched_tokens": self.clock.max_batched_tokens,
                "kv_capacity_tokens": self.clock.kv_capacity_tokens,
                "chunked_prefill": self.clock.chunked_prefill,
            },
        }


def plan_clocks(
    plan: Plan, configs: Iterable[str] | None = None, *, settings: EngineSettings | None = None
) -> dict[str, ConfigClock]:
    """A clock for each of these configs (all by default).

    ``settings`` replaces the engine's own limits. InputError where a plan's config has no profile or hardware figures.
    """
    names = list(plan.configs) if configs is None else list(configs)
    return {name: _config_clock(plan, name, plan.configs[name], settings) for name in names}


def _config_clock(plan: Plan, name: str, config: PlanConfig, settings: EngineSettings | None) -> ConfigClock:
    deployment = _deployment(plan, name, config, settings)
    inputs, outputs, rates, weights = _cells(plan, name, config)
    efficiencies = _known_efficiencies(plan)
    at_saturation = bool(config.profile and config.profile.get("assumed_slo")) or not plan.slo.thresholds_s
    if efficiencies is None:
        efficiencies = _fitted(deployment, inputs, outputs, rates) if at_saturation else Efficiencies()
    clock = step_clock(deployment, efficiencies)
    state = SteadyState(clock, inputs, outputs, max_request_tokens=deployment.max_request_tokens)
    keep = state.fits & (weights >= LEAST_WEIGHT * weights.sum())
    if not keep.any():
        raise InputError(f"no size of the plan fits {name}", fix="check the plan's hardware and model figures")
    inputs, outputs, rates, weights = inputs[keep], outputs[keep], rates[keep], weights[keep]
    if at_saturation:
        simulated = saturation_rps(clock, inputs, outputs)
        scale = float((weights / simulated).sum() ** -1 * (weights / rates).sum())
        simulated = simulated / scale
    else:
        scale = _scale_under_slo(clock, plan.slo, inputs, outputs, (weights / rates).sum(), weights)
        simulated = _slo_rates(scaled(clock, scale), plan.slo, inputs, outputs)
    clock = scaled(clock, scale)
    full = SteadyState(clock, inputs, outputs, max_request_tokens=deployment.max_request_tokens).open(1.0)
    return ConfigClock(
        config=name,
        clock=clock,
        max_request_tokens=deployment.max_request_tokens,
        time_scale=scale,
        matched="saturation" if at_saturation else "slo",
        errors=simulated / rates - 1.0,
        weights=weights / weights.sum(),
        saturated_tpot_s=float(np.average(full.tpot_decode_s, weights=weights)),
    )


def scaled(clock: StepClock, factor: float) -> StepClock:
    """The clock with every time multiplied."""
    times = [item.name for item in fields(clock) if item.name.endswith("_s") or "_s_per_" in item.name]
    return replace(clock, **{name: getattr(clock, name) * factor for name in times})


def _deployment(plan: Plan, name: str, config: PlanConfig, settings: EngineSettings | None) -> Deployment:
    if config.hardware is None or config.model_shape is None:
        missing = "hardware" if config.hardware is None else "model"
        raise InputError(
            f"the plan holds no {missing} figures of {name}, which the simulator's clock is made from",
            fix="name the model in the workload file and solve again",
        )
    gpu, model = Gpu(**config.hardware), Model(**config.model_shape)
    chosen = settings or default_settings(gpu, config.engine, engine_version(plan))
    return Deployment(model=model, gpu=gpu, tp=config.tp, precision=config.precision, settings=chosen)


def engine_version(plan: Plan) -> str | None:
    """The engine version that all of the profile's headers name, None where they differ or name none."""
    headers = (plan.provenance.get("profile") or {}).get("headers") or ()
    versions = {header.get("engine_version") for header in headers}
    version = versions.pop() if len(versions) == 1 else None
    return version if isinstance(version, str) else None


def _known_efficiencies(plan: Plan) -> Efficiencies | None:
    row = (plan.provenance.get("profile") or {}).get("efficiencies")
    return None if row is None else Efficiencies(**row)


def _cells(plan: Plan, name: str, config: PlanConfig) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """(input tokens, output tokens, max rate, weight) at the plan's own sizes that the config can serve, each (n,).

    The weight is the bucket's request rate: the match is for the whole workload's mix, whatever share the config has.
    """
    rows = [
        (b.load_input_tokens, b.load_output_tokens, rate, b.rate_rps)
        for b in plan.buckets
        if (rate := b.max_rate_rps.get(name)) and b.load_input_tokens and b.load_output_tokens
    ]
    if not rows:
        raise InputError(
            f"the plan holds no rates of {name} at known sizes: its profile is gone", fix="solve the workload again"
        )
    inputs, outputs, rates, weights = np.array(rows, dtype=float).T
    return np.maximum(np.round(inputs), 1.0), np.maximum(np.round(outputs), 1.0), rates, weights


def _fitted(deployment: Deployment, inputs: FloatArray, outputs: FloatArray, rates: FloatArray) -> Efficiencies:
    nothing = np.full(inputs.shape, np.nan)
    group = Group(
        deployment=deployment,
        points=(),
        input_tokens=inputs,
        output_tokens=outputs,
        cached_tokens=np.zeros(inputs.shape),
        rate_rps=rates,
        concurrency=nothing,
        tpot_s=nothing,
        ttft_s=nothing,
        is_saturation=np.ones(inputs.shape, dtype=bool),
        is_closed=np.zeros(inputs.shape, dtype=bool),
    )
    return fit([group]).efficiencies


def _slo_rates(clock: StepClock, slo: Slo, inputs: FloatArray, outputs: FloatArray) -> FloatArray:
    return np.maximum(SteadyState(clock, inputs, outputs).max_rate_rps(slo), 1e-12)


def _scale_under_slo(
    clock: StepClock, slo: Slo, inputs: FloatArray, outputs: FloatArray, wanted_s: float, weights: FloatArray
) -> float:
    """The factor on all times at which the mix takes ``wanted_s`` replica-seconds, by bisection."""
    low, high = 1 / 16, 16.0
    for _ in range(30):
        middle = float(np.sqrt(low * high))
        taken = (weights / _slo_rates(scaled(clock, middle), slo, inputs, outputs)).sum()
        low, high = (middle, high) if taken < wanted_s else (low, middle)
    return float(np.sqrt(low * high))


def step_clocks(clocks: Mapping[str, ConfigClock]) -> dict[str, StepClock]:
    """The clocks alone, by config."""
    return {name: entry.clock for name, entry in clocks.items()}
