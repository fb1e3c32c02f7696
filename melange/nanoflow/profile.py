"""Profiles with an ``engine: nanoflow`` row beside each other one: the same GPU and price, a predicted throughput."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from melange.arrays import FloatArray
from melange.capacity.profile import ConfigProfile, Profile
from melange.catalog.hardware import Catalog, load_catalog
from melange.perfmodel.calibration import Calibration
from melange.perfmodel.estimate import max_rates_rps, under_calibration
from melange.perfmodel.hardware import ModelledEngine, missing_memory_gib
from melange.perfmodel.overlap import shipped_interference
from melange.serving.config import ConfigKey
from melange.serving.engine_settings import default_settings
from melange.slo import Slo

ENGINE = "nanoflow"


def with_nanoflow(
    profile: Profile, *, calibration: Calibration | None = None, catalog: Catalog | None = None
) -> Profile:
    """The profile with a ``nanoflow`` table beside every other engine's that has none.

    A cell's rate is the other engine's, times what the model predicts the overlap to gain at that size and SLO: never
    less than 1, because the engine runs one batch where two nano-batches would be slower. Zero and unmeasured cells
    stay so. The values are labelled ``estimated`` whatever they were scaled from. InputError where a model or GPU is
    not in the catalog.
    """
    catalog, calibration = catalog or load_catalog(), calibration or Calibration()
    added: dict[ConfigKey, ConfigProfile] = {}
    for key, table in profile.configs.items():
        mine = key._replace(engine=ENGINE)
        if key.engine != ENGINE and mine not in profile.configs and mine not in added:
            gain = overlap_gain(table, profile.slo, calibration, catalog)
            added[mine] = _scaled(table, gain)
    warning = f"rates of engine {ENGINE} are predictions, not measured: overlap by {shipped_interference().source}"
    return replace(
        profile,
        configs={**profile.configs, **added},
        warnings=(*profile.warnings, warning),
        provenance={**profile.provenance, "nanoflow": calibration.describe()},
    )


def overlap_gain(table: ConfigProfile, slo: Slo, calibration: Calibration, catalog: Catalog) -> FloatArray:
    """Predicted rate with overlapped nano-batches over that without, shape of the table; 1 where either is 0."""
    key = table.key
    gpu, model = catalog.gpu(key.gpu), catalog.model(key.model)
    rates = []
    for engine in (key.engine, ENGINE):
        plain = ModelledEngine(
            model=model,
            gpu=gpu,
            tp=key.tp,
            precision=key.precision,
            settings=default_settings(gpu, engine),
            kv_dtype=key.kv_dtype,
            max_batched_tokens=key.max_batched_tokens,
        )
        modelled = under_calibration(plain, calibration)
        if missing_memory_gib(modelled):
            return np.ones(table.max_rate_rps.shape)
        sizes = np.meshgrid(table.input_tokens, table.output_tokens, indexing="ij")
        rates.append(max_rates_rps(modelled, slo, *sizes, efficiencies=calibration.efficiencies_of(key.gpu)))
    sequential, overlapped = rates
    known = (sequential > 0) & (overlapped > 0)
    return np.where(known, np.maximum(overlapped / np.where(known, sequential, 1.0), 1.0), 1.0)


def _scaled(table: ConfigProfile, gain: FloatArray) -> ConfigProfile:
    return replace(
        table,
        key=table.key._replace(engine=ENGINE),
        max_rate_rps=table.max_rate_rps * gain,
        next_failing_rps=np.full(gain.shape, np.nan),
        low_rps=table.low_rps,
        high_rps=table.high_rps * gain,
        source=np.where(table.source == "", "", "estimated").astype("<U9"),
    )
