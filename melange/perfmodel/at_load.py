"""estimate_at_load: what one replica does with requests of a size under a stated load, as one call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from melange.arrays import FloatArray, five_digits
from melange.catalog.hardware import Catalog, Gpu, load_catalog
from melange.catalog.models import Model
from melange.errors import InputError
from melange.files.records import to_plain
from melange.files.shown import short_repr
from melange.measurements.measurement import MOST_TOKENS
from melange.perfmodel.calibration import Calibration
from melange.perfmodel.estimate import rates_with_band, steady_state
from melange.perfmodel.estimates import configurations
from melange.perfmodel.hardware import ModelledEngine
from melange.perfmodel.load import Load, Prompts
from melange.perfmodel.loadpoint import LoadPoint
from melange.perfmodel.nearest import Nearest, PublicPoints
from melange.perfmodel.steady import SteadyState
from melange.serving.config import ConfigKey
from melange.serving.speculation import Speculation
from melange.slo import Slo

Bound = Literal["kv cache", "sequences", "token budget"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadEstimate:
    """One replica with requests of one size under one load: means, of which None says that there is no such figure.

    ``rate_rps`` is what it serves, within an 80% band. A rate that is asked for and not ``kept`` is above
    ``saturation_rps``, which is then what it serves; waits grow without end, and TTFT and E2E are None. So they are at
    the highest rate. ``tpot_decode_s`` is (latency - TTFT) / (output tokens - 1), None of one output token. ``slots``
    is the most requests that it works on at once, and ``bound`` what limits them. All is 0 where ``fits`` is False.
    """

    key: ConfigKey
    input_tokens: float
    output_tokens: float
    cached_tokens: float
    load: Load
    fits: bool
    kept: bool
    rate_rps: float
    low_rps: float
    high_rps: float
    saturation_rps: float
    tpot_decode_s: float | None
    ttft_s: float | None
    e2e_s: float | None
    slots: float
    bound: Bound | None
    nearest: Nearest | None = None

    @property
    def output_tokens_per_s(self) -> float:
        return self.rate_rps * self.output_tokens

    @property
    def input_tokens_per_s(self) -> float:
        return self.rate_rps * self.input_tokens

    @property
    def output_tokens_per_s_per_gpu(self) -> float:
        return self.output_tokens_per_s / self.key.tp

    @property
    def is_prompt_alone(self) -> bool:
        return self.output_tokens <= 1

    def row(self) -> dict[str, Any]:
        """Its figures by name and unit, JSON-ready, without the nearest measurement."""
        tokens = self.output_tokens
        return {
            **self.key.row(),
            "input_tokens": self.input_tokens,
            "output_tokens": tokens,
            "cached_tokens": self.cached_tokens,
            "concurrency": self.load.concurrency,
            "offered_rps": self.load.rate_rps,
            "fits": self.fits,
            "kept": self.kept,
            "rate_rps": _short(self.rate_rps),
            "low_rps": _short(self.low_rps),
            "high_rps": _short(self.high_rps),
            "saturation_rps": _short(self.saturation_rps),
            "input_tokens_per_s": _short(self.input_tokens_per_s),
            "output_tokens_per_s": _short(self.output_tokens_per_s),
            "low_output_tokens_per_s": _short(self.low_rps * tokens),
            "high_output_tokens_per_s": _short(self.high_rps * tokens),
            "output_tokens_per_s_per_gpu": _short(self.output_tokens_per_s_per_gpu),
            "tpot_decode_mean_s": _short(self.tpot_decode_s),
            "ttft_mean_s": _short(self.ttft_s),
            "e2e_mean_s": _short(self.e2e_s),
            "slots": _short(self.slots),
            "bound": self.bound,
        }

    def to_dict(self) -> dict[str, Any]:
        """:meth:`row` with the nearest public measurement."""
        return {**self.row(), "nearest_public": None if self.nearest is None else to_plain(self.nearest)}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoadEstimates:
    """Estimates under loads, by configuration, size and load in the order asked; ``notes`` say what does not fit."""

    rows: tuple[LoadEstimate, ...]
    calibration: Calibration
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        configs = ", ".join(dict.fromkeys(row.key.describe() for row in self.rows))
        return short_repr("LoadEstimates", f"{len(self.rows)} rows, {self.calibration.describe()}: {configs}")


def estimate_at_load(
    model: str | Model,
    gpus: str | Gpu | Sequence[str | Gpu],
    loads: Sequence[Load],
    *,
    input_tokens: Sequence[float],
    output_tokens: Sequence[float],
    tp: Sequence[int] = (1,),
    precisions: Sequence[str] | None = None,
    engines: Sequence[str] = ("vllm",),
    kv_dtypes: Sequence[str] = ("auto",),
    batched_tokens: Sequence[int | None] = (None,),
    sequences: Sequence[int | None] = (None,),
    cached_tokens: float = 0.0,
    speculation: Speculation | None = None,
    calibration: Calibration | None = None,
    catalog: Catalog | None = None,
) -> LoadEstimates:
    """What every configuration does at every size under every load, beside the nearest public measurement.

    Configurations are those of :func:`melange.estimate`. An output of one token is a prompt alone, which no decode
    shares an iteration with. Raises InputError for unknown names and where no configuration fits its GPUs.
    """
    if not loads:
        raise InputError("there is no load to estimate", fix="give at least one")
    for tokens in (*input_tokens, *output_tokens):
        if not 0 < tokens <= MOST_TOKENS:
            raise InputError(f"a request size is {tokens:g} tokens", fix=f"give a size above 0, up to {MOST_TOKENS:g}")
    catalog, calibration = catalog or load_catalog(), calibration or Calibration()
    modelled, notes = configurations(
        model,
        gpus,
        tp=tp,
        precisions=precisions,
        engines=engines,
        kv_dtypes=kv_dtypes,
        batched_tokens=batched_tokens,
        sequences=sequences,
        speculation=speculation,
        calibration=calibration,
        catalog=catalog,
    )
    rows: list[LoadEstimate] = []
    for one in modelled:
        public = PublicPoints(one, catalog=catalog, calibration=calibration)
        for asked in _sizes_of(one, input_tokens, output_tokens, cached_tokens, calibration):
            rows += [asked.under(load, public) for load in loads]
    return LoadEstimates(rows=tuple(rows), calibration=calibration, notes=notes)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Size:
    """Requests of one size on a modelled engine, and its band as factors of a rate."""

    modelled: ModelledEngine
    state: SteadyState | Prompts
    output_tokens: float
    low: float
    high: float

    def under(self, load: Load, public: PublicPoints) -> LoadEstimate:
        state, fits = self.state, bool(self.state.fits)
        saturation = float(state.saturation_rps)
        kept = fits and (load.rate_rps is None or load.rate_rps < saturation)
        point = load.of(state)
        rate, low, high = self._rates(load, float(point.rate_rps), saturation) if fits else (0.0, 0.0, 0.0)
        return LoadEstimate(
            key=self.modelled.key,
            input_tokens=float(state.input),
            output_tokens=self.output_tokens,
            cached_tokens=float(state.cached),
            load=load,
            fits=fits,
            kept=kept,
            rate_rps=rate,
            low_rps=low,
            high_rps=high,
            saturation_rps=saturation,
            **_latencies(point, fits, kept),
            slots=float(state.slots) if fits else 0.0,
            bound=_bound(state) if fits else None,
            nearest=public.nearest(float(state.input), self.output_tokens, load, rate),
        )

    def _rates(self, load: Load, found_rps: float, saturation_rps: float) -> tuple[float, float, float]:
        """What is served, and its band: of a rate of arrivals, only where saturation may lie below it."""
        if load.rate_rps is None:
            rate = saturation_rps if load.concurrency is None else found_rps
            return rate, rate * self.low, rate * self.high
        ends = (1.0, self.low, self.high)
        rate, low, high = (min(load.rate_rps, saturation_rps * factor) for factor in ends)
        return rate, low, high


def _latencies(point: LoadPoint, fits: bool, kept: bool) -> dict[str, float | None]:
    bounded = kept and bool(np.isfinite(point.wait_s))
    return {
        "tpot_decode_s": float(point.tpot_decode_s) if fits and point.decode_steps > 0 else None,
        "ttft_s": float(point.ttft_s) if bounded else None,
        "e2e_s": float(point.e2e_s) if bounded else None,
    }


def _sizes_of(
    modelled: ModelledEngine,
    input_tokens: Sequence[float],
    output_tokens: Sequence[float],
    cached_tokens: float,
    calibration: Calibration,
) -> list[_Size]:
    inputs, outputs = (axis.ravel() for axis in np.meshgrid(input_tokens, output_tokens, indexing="ij"))
    band = rates_with_band(modelled, Slo(), inputs, outputs, cached_tokens, calibration=calibration)
    low, high = band.ends
    efficiencies = calibration.efficiencies_of(modelled.gpu.name)
    sizes = []
    for n, (prompt, output) in enumerate(zip(inputs, outputs, strict=True)):
        state: SteadyState | Prompts
        state = steady_state(modelled, prompt, output, cached_tokens, efficiencies=efficiencies)
        if output <= 1:
            longest = modelled.max_request_tokens
            state = Prompts(state.clock, prompt, cached_tokens, max_request_tokens=longest)
        sizes.append(
            _Size(modelled=modelled, state=state, output_tokens=float(output), low=float(low[n]), high=float(high[n]))
        )
    return sizes


def _bound(state: SteadyState | Prompts) -> Bound:
    """What limits the slots of a request that fits."""
    if isinstance(state, Prompts):
        return "sequences" if state.slots >= state.clock.max_num_seqs else "token budget"
    limit: FloatArray = np.minimum(state.kv_slots, state.clock.max_num_seqs)
    if state.slots < limit * (1.0 - 1e-9):
        return "token budget"
    return "kv cache" if bool(state.is_kv_bound) else "sequences"


def _short(value: float | None) -> float | None:
    return None if value is None else five_digits(value)
