"""estimate: what GPUs would serve that nobody measured, as one call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from melange.arrays import FloatArray
from melange.capacity.profile import Profile
from melange.catalog.hardware import Catalog, Gpu, load_catalog
from melange.catalog.models import Model
from melange.errors import InputError
from melange.files.shown import short_repr
from melange.measurements.measurement import Measurement
from melange.perfmodel.calibration import Calibration, basis_of
from melange.perfmodel.estimate import fitting, load_points, max_rates_rps, under_calibration
from melange.perfmodel.hardware import ModelledEngine
from melange.perfmodel.profile import estimated_table, kernel_notes, warnings_of
from melange.perfmodel.sequences import suiting_sequences
from melange.serving.config import KV_DTYPES
from melange.serving.engine_settings import default_settings
from melange.serving.speculation import Speculation
from melange.slo import Slo
from melange.workload.sizes import PAPER_INPUT_EDGES_TOKENS, PAPER_OUTPUT_EDGES_TOKENS

ENGINES = ("vllm", "sglang", "tensorrt-llm", "nanoflow")
BEST: Literal["best"] = "best"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Estimates:
    """Rates under an SLO, a ladder of load points that answers any other one, and what a reader should know.

    ``profile`` holds the rates (its ``to_frame`` is the table) and goes into :func:`plan_fleet` as it is; ``points``
    are what ``melange estimate --save`` writes; ``notes`` say which configurations do not fit and why.
    """

    profile: Profile
    points: tuple[Measurement, ...]
    calibration: Calibration
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        configs = ", ".join(key.describe() for key in self.profile.configs)
        return short_repr("Estimates", f"{self.profile.slo.describe()}, {self.calibration.describe()}: {configs}")

    def _repr_html_(self) -> str:
        return "\n".join(config._repr_html_() for config in self.profile.configs.values())


def estimate(
    model: str | Model,
    gpus: str | Gpu | Sequence[str | Gpu],
    slo: Slo | None = None,
    *,
    tp: Sequence[int] = (1,),
    precisions: Sequence[str] | None = None,
    engines: Sequence[str] = ("vllm",),
    kv_dtypes: Sequence[str] = ("auto",),
    batched_tokens: Sequence[int | None] = (None,),
    sequences: Sequence[int | Literal["best"] | None] = (None,),
    input_tokens: Sequence[float] = PAPER_INPUT_EDGES_TOKENS,
    output_tokens: Sequence[float] = PAPER_OUTPUT_EDGES_TOKENS,
    cached_tokens: float = 0.0,
    speculation: Speculation | None = None,
    calibration: Calibration | None = None,
    catalog: Catalog | None = None,
) -> Estimates:
    """Estimate every configuration of a model on these GPUs with the performance model.

    Models and GPUs are names of the catalog or described ones (:func:`extended_catalog`). ``cached_tokens`` of every
    prompt are prefix hits. ``precisions`` None is the checkpoint's own, ``None`` among ``batched_tokens`` the engine's
    own budget of an iteration, among ``sequences`` its own most requests at once; ``best``
    stands for its own and up to three other numbers, those that suit the SLO at these sizes. Without ``slo`` the rates
    are what a replica sustains at any latency. With ``speculation`` every configuration decodes so; its points are not
    for a measurements file, which cannot say it. Raises InputError for unknown names and where no configuration fits.
    """
    catalog, calibration, slo = catalog or load_catalog(), calibration or Calibration(), slo or Slo()
    shape = catalog.model(model) if isinstance(model, str) else model
    modelled, notes = configurations(
        shape,
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
    if BEST in sequences:
        i, o = (sizes.ravel() for sizes in np.meshgrid(input_tokens, output_tokens, indexing="ij"))
        hits = np.full(i.shape, float(cached_tokens))
        modelled = [each for one in modelled for each in _with_sequences(one, slo, (i, o, hits), calibration)]
        modelled = list({one.key: one for one in modelled}.values())
    cached = [cached_tokens] * len(input_tokens)
    tables = {
        one.key: estimated_table(one, slo, input_tokens, output_tokens, cached_tokens=cached, calibration=calibration)
        for one in modelled
    }
    points = [
        point
        for one in modelled
        for point in load_points(one, input_tokens, output_tokens, calibration=calibration, cached_tokens=cached_tokens)
    ]
    return Estimates(
        profile=Profile(
            slo=slo,
            configs=tables,
            warnings=(*warnings_of(calibration, slo, shape), *_of_speculation(speculation)),
            basis=basis_of(calibration),
        ),
        points=tuple(points),
        calibration=calibration,
        notes=notes,
    )


def configurations(
    model: str | Model,
    gpus: str | Gpu | Sequence[str | Gpu],
    *,
    tp: Sequence[int],
    precisions: Sequence[str] | None,
    engines: Sequence[str],
    kv_dtypes: Sequence[str],
    batched_tokens: Sequence[int | None],
    sequences: Sequence[int | Literal["best"] | None],
    speculation: Speculation | None,
    calibration: Calibration,
    catalog: Catalog,
) -> tuple[list[ModelledEngine], tuple[str, ...]]:
    """Those of the configurations that :func:`estimate` is asked for that fit their GPUs, and what to know of them.

    ``best`` among ``sequences`` is the engine's own here: what suits an SLO is for :func:`estimate` to find.
    """
    shape = catalog.model(model) if isinstance(model, str) else model
    wanted = [gpus] if isinstance(gpus, str | Gpu) else gpus
    hardware = [catalog.gpu(gpu) if isinstance(gpu, str) else gpu for gpu in wanted]
    stored_as = precisions or (shape.precision,)
    for kv_dtype in kv_dtypes:
        if kv_dtype not in KV_DTYPES:
            raise InputError(f"KV-cache dtype is {kv_dtype!r}", fix=f"use one of {', '.join(KV_DTYPES)}")
    asked = [
        under_calibration(
            replace(one, kv_dtype=kv_dtype, max_batched_tokens=budget, max_num_seqs=most, speculation=speculation),
            calibration,
        )
        for one in _engines(shape, hardware, engines, list(tp), stored_as)
        for kv_dtype in kv_dtypes
        for budget in batched_tokens
        for most in dict.fromkeys(None if most == BEST else most for most in sequences)
    ]
    modelled, reasons = fitting(list({one.key: one for one in asked}.values()))
    if not modelled:
        raise InputError("; ".join(reasons), fix="use more GPUs, a smaller precision or a larger GPU")
    stored = [one for one in modelled if one.is_stored_only]
    notes = dict.fromkeys(f"{one.gpu.name} only stores {one.precision}: it computes at 16 bits" for one in stored)
    return modelled, (*_of_speculation(speculation), *notes, *kernel_notes(modelled), *reasons)


def _of_speculation(speculation: Speculation | None) -> tuple[str, ...]:
    if speculation is None:
        return ()
    return (
        f"speculative decoding: {speculation.describe()}, as you say, yield {speculation.yielded_tokens:.2f} tokens "
        "a step; what that gains is computed, not measured, and simulations do not know of it",
    )


def _with_sequences(
    one: ModelledEngine, slo: Slo, sizes: tuple[FloatArray, FloatArray, FloatArray], calibration: Calibration
) -> list[ModelledEngine]:
    """It, and it with the numbers of sequences that suit the sizes, each of which is as much asked for as it can do."""
    if one.max_num_seqs is not None:
        return [one]
    efficiencies = calibration.efficiencies_of(one.gpu.name)
    demand = max_rates_rps(one, slo, *sizes, efficiencies=efficiencies)
    demand = np.where(demand > 0, demand, demand.max(initial=0.0) or 1.0)
    numbers = suiting_sequences(one, slo, *sizes, demand, calibration=calibration)
    return [one, *(replace(one, max_num_seqs=number) for number in numbers)]


def _engines(
    model: Model, gpus: Sequence[Gpu], engines: Sequence[str], degrees: Sequence[int], precisions: Sequence[str]
) -> Iterator[ModelledEngine]:
    for engine in engines:
        if engine not in ENGINES:
            raise InputError(f"no model of the engine {engine!r}", fix=f"use one of {', '.join(ENGINES)}")
        for gpu in gpus:
            settings = default_settings(gpu, engine)
            for tp in degrees:
                for precision in precisions:
                    yield ModelledEngine(model=model, gpu=gpu, tp=tp, precision=precision, settings=settings)
