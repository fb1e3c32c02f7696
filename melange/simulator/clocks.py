"""The clock of each of a plan's configs: the performance model, calibrated to the rates that the plan was solved with.

Where the plan's profile was measured with latencies, the efficiencies are fitted to its load points and the clock is
taken as it is. Else they come from the plan's estimate, or are fitted per config to its table (only what throughput
identifies; the rest keeps its prior), and a last factor on all times makes the simulated replica carry the plan's mix
of sizes at the rate that the plan believes: a table without an SLO is matched at saturation as the compiled scheduler
plays it, a table under an SLO by the steady state's highest rate under it. What single sizes are still off is reported
as ``errors``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import brentq

from melange.arrays import BoolArray, FloatArray
from melange.errors import InputError
from melange.measurements.curve import MIN_POINTS, MeasuredCurve
from melange.perfmodel.calibrate import Group, fit, group_of
from melange.perfmodel.clock import StepClock
from melange.perfmodel.hardware import ModelledEngine, step_clock
from melange.perfmodel.steady import SteadyState
from melange.plan.config import PlanConfig
from melange.plan.plan import Plan
from melange.routing.policy import DEFAULT_POLICY, Policy, policy_by_name
from melange.routing.router import Router
from melange.routing.table import fleet_configs
from melange.serving.config import ConfigKey
from melange.serving.efficiencies import Efficiencies
from melange.serving.engine_settings import EngineSettings, default_settings
from melange.simulator.saturation import saturation_rps
from melange.slo import Slo

LEAST_WEIGHT = 1e-3
"""Sizes with less than this share of a config's load are left out of the match."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigClock:
    """One config's calibrated clock, and how well it reproduces the plan's rates.

    ``time_scale`` is the last factor on all times. ``matched`` says what was matched: ``latencies`` of load points, the
    rates at ``saturation``, those under the ``slo``, or ``nothing`` where the config serves no size in time.
    ``errors``: simulated rate / the plan's rate - 1 at each size that was compared, weighted by ``weights``; both are
    empty where nothing was.
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
        """Median of the absolute errors, 0 where nothing was compared."""
        return float(np.median(np.abs(self.errors))) if self.errors.size else 0.0

    @property
    def worst_error(self) -> float:
        """Largest of the absolute errors, 0 where nothing was compared."""
        return float(np.abs(self.errors).max(initial=0.0))

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
    measured = _measured(plan)
    return {name: _config_clock(plan, name, plan.configs[name], settings, measured) for name in names}


@dataclass(slots=True)
class _Measured:
    """Load points of one configuration; a fit to them takes seconds and serves every offer of it."""

    curve: MeasuredCurve
    efficiencies: Efficiencies | None = None

    def fitted(self, modelled: ModelledEngine) -> Efficiencies:
        if self.efficiencies is None:
            self.efficiencies = fit([group_of(modelled, self.curve.deciding)]).efficiencies
        return self.efficiencies


def _config_clock(
    plan: Plan,
    name: str,
    config: PlanConfig,
    settings: EngineSettings | None,
    measured: Mapping[ConfigKey, _Measured],
) -> ConfigClock:
    own = None if config.key is None else measured.get(config.key)
    modelled = _modelled_engine(plan, name, config, settings, None if own is None else own.curve)
    cells = _cells(plan, name)
    if not cells.rates.size:
        return _unmatched(plan, name, modelled, own)
    at_saturation = bool(config.profile and config.profile.assumed_slo) or not plan.slo.thresholds_s
    if own is not None:
        efficiencies = own.fitted(modelled)
    else:
        known = plan.basis.efficiencies_of(modelled.gpu.name)
        efficiencies = known or (_fitted(modelled, cells) if at_saturation else Efficiencies())
    clock = step_clock(modelled, efficiencies)
    longest = modelled.max_request_tokens
    fits = SteadyState(clock, cells.inputs, cells.outputs, max_request_tokens=longest).fits
    keep = fits & (cells.weights >= LEAST_WEIGHT * cells.weights.sum())
    if not keep.any():
        raise InputError(f"no size of the plan fits {name}", fix="check the plan's hardware and model figures")
    cells = cells.kept(keep)
    scale = 1.0 if own is not None else _scale(clock, plan.slo, cells, at_saturation)
    clock = clock.scaled(scale)
    simulated = saturation_rps(clock, *cells[:2]) if at_saturation else _slo_rates(clock, plan.slo, cells)
    full = SteadyState(clock, cells.inputs, cells.outputs, max_request_tokens=longest).open(1.0)
    return ConfigClock(
        config=name,
        clock=clock,
        max_request_tokens=longest,
        time_scale=scale,
        matched="latencies" if own is not None else "saturation" if at_saturation else "slo",
        errors=simulated / cells.rates - 1.0,
        weights=cells.weights / cells.weights.sum(),
        saturated_tpot_s=float(np.average(full.tpot_decode_s, weights=cells.weights)),
    )


def _unmatched(plan: Plan, name: str, modelled: ModelledEngine, own: _Measured | None) -> ConfigClock:
    """The clock of a config without a rate to match: it serves no size in time, but may still be sent requests."""
    efficiencies = (
        own.fitted(modelled) if own is not None else plan.basis.efficiencies_of(modelled.gpu.name) or Efficiencies()
    )
    clock, longest = step_clock(modelled, efficiencies), modelled.max_request_tokens
    sizes = [(b.load_input_tokens, b.load_output_tokens) for b in plan.buckets if name in b.max_rate_rps]
    known = np.array([size for size in sizes if None not in size], dtype=float).reshape(-1, 2).round().clip(1.0)
    tokens = known.sum(axis=1)
    fits = (tokens <= longest) & (clock.held_tokens(tokens) <= clock.kv_capacity_tokens)
    if not fits.any():
        raise InputError(
            f"the plan holds no rates of {name} at sizes that it can hold: its profile is gone",
            fix="solve the workload again",
        )
    full = SteadyState(clock, known[fits, 0], known[fits, 1], max_request_tokens=longest).open(1.0)
    return ConfigClock(
        config=name,
        clock=clock,
        max_request_tokens=longest,
        time_scale=1.0,
        matched="nothing",
        errors=np.empty(0),
        weights=np.empty(0),
        saturated_tpot_s=float(np.mean(full.tpot_decode_s)),
    )


def _measured(plan: Plan) -> dict[ConfigKey, _Measured]:
    """Load points with latencies by configuration, where the plan's profile has enough of them."""
    return {curve.key: _Measured(curve) for curve in plan.basis.curves if len(curve.points) >= MIN_POINTS}


def _modelled_engine(
    plan: Plan, name: str, config: PlanConfig, settings: EngineSettings | None, curve: MeasuredCurve | None
) -> ModelledEngine:
    shape = config.model_shape or (None if curve is None else curve.model_shape)
    if config.hardware is None or shape is None:
        missing = "hardware" if config.hardware is None else "model"
        raise InputError(
            f"the plan holds no {missing} figures of {name}, which the simulator's clock is made from",
            fix="name a model that 'melange gpus --models' lists, or measure one from its folder, and solve again",
        )
    gpu, basis = config.hardware, plan.basis
    own: dict[str, Any] = {}  # settings that are given stand above what the config chooses
    if settings is None:
        own = {"kv_dtype": config.kv_dtype, "max_batched_tokens": config.max_batched_tokens}
    chosen = settings or (None if curve is None else curve.engine_settings) or basis.engine_settings
    return ModelledEngine(
        model=shape,
        gpu=gpu,
        tp=config.tp,
        precision=config.precision,
        settings=chosen or default_settings(gpu, config.engine, basis.engine_version),
        clock=basis.clock,
        engine_version=basis.engine_version,
        **own,
    )


class _Cells(NamedTuple):
    """A plan's sizes that a config can serve, each (n,): input and output tokens, max rate, and weight.

    The weight is the bucket's request rate: a match is for the whole workload's mix, whatever share the config has.
    """

    inputs: FloatArray
    outputs: FloatArray
    rates: FloatArray
    weights: FloatArray

    def kept(self, keep: BoolArray) -> _Cells:
        return _Cells(*(column[keep] for column in self))

    @property
    def taken_s(self) -> float:
        """Replica-seconds that a second's requests take at the plan's rates."""
        return float((self.weights / self.rates).sum())


def _cells(plan: Plan, name: str) -> _Cells:
    rows = [
        (b.load_input_tokens, b.load_output_tokens, rate, b.rate_rps)
        for b in plan.buckets
        if (rate := b.max_rate_rps.get(name)) and b.load_input_tokens and b.load_output_tokens
    ]
    inputs, outputs, rates, weights = np.array(rows, dtype=float).reshape(-1, 4).T
    return _Cells(np.maximum(np.round(inputs), 1.0), np.maximum(np.round(outputs), 1.0), rates, weights)


def _fitted(modelled: ModelledEngine, cells: _Cells) -> Efficiencies:
    nothing = np.full(cells.inputs.shape, np.nan)
    group = Group(
        modelled=modelled,
        points=(),
        input_tokens=cells.inputs,
        output_tokens=cells.outputs,
        cached_tokens=np.zeros(cells.inputs.shape),
        rate_rps=cells.rates,
        concurrency=nothing,
        tpot_s=nothing,
        ttft_s=nothing,
        is_saturation=np.ones(cells.inputs.shape, dtype=bool),
        is_closed=np.zeros(cells.inputs.shape, dtype=bool),
    )
    return fit([group]).efficiencies


def _slo_rates(clock: StepClock, slo: Slo, cells: _Cells) -> FloatArray:
    return np.maximum(SteadyState(clock, cells.inputs, cells.outputs).max_rate_rps(slo), 1e-12)


def _scale(clock: StepClock, slo: Slo, cells: _Cells, at_saturation: bool) -> float:
    """The factor on all times at which the mix takes the replica-seconds that the plan's rates say."""
    if at_saturation:
        return float(cells.taken_s / (cells.weights / saturation_rps(clock, *cells[:2])).sum())

    def excess(log_factor: float) -> float:
        taken_s = (cells.weights / _slo_rates(clock.scaled(float(np.exp(log_factor))), slo, cells)).sum()
        return float(np.log(taken_s / cells.taken_s))

    widest = float(np.log(16.0))
    if excess(-widest) > 0 or excess(widest) < 0:
        return float(np.exp(-widest if excess(-widest) > 0 else widest))
    return float(np.exp(brentq(excess, -widest, widest, xtol=1e-9)))


def step_clocks(clocks: Mapping[str, ConfigClock]) -> dict[str, StepClock]:
    """The clocks alone, by config."""
    return {name: entry.clock for name, entry in clocks.items()}


def plan_router(plan: Plan, policy: str | Policy = DEFAULT_POLICY, *, seed: int = 0) -> Router:
    """A router of live requests over a plan's replicas, on clocks that carry the plan's rates.

    ``policy`` is one or its name (:func:`melange.routing.policy.policy_by_name`).
    """
    chosen = policy_by_name(policy) if isinstance(policy, str) else policy
    return Router(plan, step_clocks(plan_clocks(plan, fleet_configs(plan))), chosen, seed=seed)
