"""The public measurement that is nearest to an estimate, what the model says of it, and in what the two differ."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from melange.catalog.hardware import Catalog, load_catalog
from melange.catalog.models import Model
from melange.measurements.public import PublicPoint, shipped_points
from melange.perfmodel.calibration import Calibration
from melange.perfmodel.hardware import ModelledEngine
from melange.perfmodel.load import Load
from melange.perfmodel.published import Figures, load_of, measured_figures, predicted_figures

# How far apart two measurements are: a unit is a factor e of size or load. What changes throughput itself weighs more.
ACTIVE_PARAMETERS, ALL_PARAMETERS, OTHER_MODEL = 4.0, 1.0, 0.1
OTHER_PRECISION, TP, OTHER_ENGINE, OTHER_KIND = 2.0, 2.0, 1.0, 0.5
_SIXTEEN_BITS = ("fp16", "bf16")


@dataclass(frozen=True, slots=True, kw_only=True)
class Nearest:
    """A public measurement beside what the model says of the same engine, size and load.

    ``differs`` names what is other than in the estimate (empty: nothing), ``distance`` is how far that is: 1 is about
    a factor 2.7 of size or load, or another engine.
    """

    point: PublicPoint
    measured: Figures
    predicted: Figures
    differs: tuple[str, ...]
    distance: float


class PublicPoints:
    """The public measurements of one GPU, by how near they are to a modelled engine."""

    def __init__(
        self,
        modelled: ModelledEngine,
        *,
        points: Sequence[PublicPoint] | None = None,
        catalog: Catalog | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        self._modelled, self._calibration = modelled, calibration
        self._catalog = catalog or load_catalog()
        self._predicted: dict[int, Figures] = {}
        found = shipped_points() if points is None else points
        of_gpu = [point for point in found if point.gpu == modelled.gpu.name and _has_figures(point)]
        self._points = [(self._engine_distance(point), point) for point in of_gpu]

    def __len__(self) -> int:
        return len(self._points)

    def nearest(self, input_tokens: float, output_tokens: float, load: Load, rate_rps: float) -> Nearest | None:
        """The nearest measurement of a size under a load that reaches such a rate; None where there is none.

        Of a prompt alone (one token of output) that is the nearest TTFT, whatever followed it.
        """
        is_prompt = output_tokens <= 1
        distances = [
            (
                apart
                + _size_distance(point, input_tokens, None if is_prompt else output_tokens)
                + _load_distance(point, load, rate_rps),
                n,
            )
            for n, (apart, point) in enumerate(self._points)
            if not is_prompt or measured_figures(point).ttft_s is not None
        ]
        if not distances:
            return None
        distance, n = min(distances)
        _, point = self._points[n]
        if n not in self._predicted:
            self._predicted[n] = predicted_figures(point, calibration=self._calibration, catalog=self._catalog)
        return Nearest(
            point=point,
            measured=measured_figures(point),
            predicted=self._predicted[n],
            differs=(*self._differs(point), *_load_differs(point, input_tokens, output_tokens, load)),
            distance=float(f"{distance:.3g}"),
        )

    def _model_of(self, point: PublicPoint) -> Model:
        return self._catalog.model(point.model)

    def _engine_distance(self, point: PublicPoint) -> float:
        asked, model = self._modelled.model, self._model_of(point)
        apart = OTHER_MODEL if model.name != asked.name else 0.0
        apart += ACTIVE_PARAMETERS * abs(math.log(model.active_parameters / asked.active_parameters))
        apart += ALL_PARAMETERS * abs(math.log(model.parameters / asked.parameters))
        apart += 0.0 if _same_precision(point.precision, self._modelled.precision) else OTHER_PRECISION
        apart += TP * abs(math.log(point.tp / self._modelled.tp))
        return apart + (0.0 if point.engine == self._modelled.engine.name else OTHER_ENGINE)

    def _differs(self, point: PublicPoint) -> list[str]:
        asked, found = self._modelled, []
        if point.model != asked.model.name:
            model = self._model_of(point)
            active = [f"{one.active_parameters / 1e9:.3g}B" for one in (model, asked.model)]
            apart = f" ({active[0]} active, not {active[1]})" if active[0] != active[1] else ""
            found.append(f"model {point.model}{apart}")
        if not _same_precision(point.precision, asked.precision):
            found.append(f"{point.precision}, not {asked.precision}")
        if point.tp != asked.tp:
            found.append(f"TP {point.tp}, not {asked.tp}")
        if point.engine != asked.engine.name:
            found.append(f"{point.engine}, not {asked.engine.name}")
        return found


def _has_figures(point: PublicPoint) -> bool:
    figures = measured_figures(point)
    return any(value is not None for value in (figures.output_tokens_per_s, figures.ttft_s, figures.tpot_decode_s))


def _same_precision(one: str, other: str) -> bool:
    return one == other or {one, other} <= set(_SIXTEEN_BITS)


def _size_distance(point: PublicPoint, input_tokens: float, output_tokens: float | None) -> float:
    of_prompt = abs(math.log(point.input_tokens / input_tokens))
    return of_prompt if output_tokens is None else of_prompt + abs(math.log(point.output_tokens / output_tokens))


def _load_distance(point: PublicPoint, load: Load, rate_rps: float) -> float:
    """Between loads of one kind as they are stated, of two kinds by their rates."""
    other = load_of(point)
    if load.concurrency is not None and other.concurrency is not None:
        return abs(math.log(other.concurrency / load.concurrency))
    if load.rate_rps is not None and other.rate_rps is not None:
        return abs(math.log(other.rate_rps / load.rate_rps))
    if load.kind == other.kind:
        return 0.0
    throughput = point.output_tokens_per_s
    reached = other.rate_rps if throughput is None else throughput / point.output_tokens
    return OTHER_KIND + (1.0 if not reached or rate_rps <= 0 else abs(math.log(reached / rate_rps)))


def _load_differs(point: PublicPoint, input_tokens: float, output_tokens: float, load: Load) -> list[str]:
    found = []
    if (point.input_tokens, point.output_tokens) != (input_tokens, output_tokens):
        found.append(f"{point.input_tokens:g}/{point.output_tokens:g} tokens, not {input_tokens:g}/{output_tokens:g}")
    other = load_of(point)
    if other != load:
        found.append(f"{other.describe()}, not {load.describe()}")
    return found
