"""Which of a profile's configurations a workload may use, and among what its cheapest fleet is the cheapest."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

import numpy as np

from melange.capacity.profile import Profile
from melange.catalog.hardware import Catalog
from melange.catalog.precisions import PRECISIONS
from melange.errors import InputError
from melange.planning.candidates import precisions_of
from melange.planning.spec import ANY, ServingChoice, WorkloadSpec
from melange.serving.config import ConfigKey, ServingConfig
from melange.serving.considered import Considered
from melange.serving.engine_settings import chosen_settings, default_settings

_SIXTEEN_BITS = {"bf16": "fp16"}  # told apart by engines, alike in size and speed


def served_keys(spec: WorkloadSpec, profile: Profile, catalog: Catalog) -> list[ConfigKey]:
    """The profile's configurations of the workload's model that pass its serving choice, in the profile's order.

    Without a choice of precision, those of the checkpoint's own on every GPU type that has some; under ``any``, on each
    type those of the precision at which the workload takes least of it.
    """
    model = _served_model(spec, profile, catalog)
    serving = spec.serving
    keys = [
        key
        for key in profile.configs
        if key.model == model
        and (not serving.tp or key.tp in serving.tp)
        and (not serving.engines or key.engine in serving.engines)
        and (not serving.batched_tokens or _limits(key, catalog)[0] in serving.batched_tokens)
        and (not serving.sequences or _limits(key, catalog)[1] in serving.sequences)
    ]
    keys = _of_kv_dtype(_of_precision(keys, spec, profile, catalog), serving)
    if not keys:
        none = InputError("no profiled configuration passes the workload's serving choice", fix="widen serving")
        raise spec.located(none, "serving")
    return keys


def _served_model(spec: WorkloadSpec, profile: Profile, catalog: Catalog) -> str:
    """The workload's model as the profile calls it: its catalog name, an alias, or a name of the profile's own."""
    models = sorted({key.model for key in profile.configs})
    asked = spec.workload.model
    if asked is None:
        if len(models) > 1:
            raise InputError(f"the profile holds {len(models)} models: {', '.join(models)}", fix="name one as model")
        return models[0]
    for model in models:
        if asked == model:
            return model
    for model in models:
        if _catalog_name(asked, catalog) == _catalog_name(model, catalog):
            return model
    near = difflib.get_close_matches(asked, models, n=1, cutoff=0.4)
    missing = InputError(
        f"the profile has no model {asked!r}",
        fix=f"did you mean {near[0]!r}?" if near else f"it holds {', '.join(models)}",
    )
    raise spec.located(missing, "model")


def _catalog_name(model: str, catalog: Catalog) -> str:
    try:
        return catalog.model(model).name
    except InputError:
        return model


def _limits(key: ConfigKey, catalog: Catalog) -> tuple[int, int]:
    """Token budget and sequences of an iteration, the engine's own where the key chooses none."""
    settings = chosen_settings(default_settings(catalog.gpu(key.gpu), key.engine), **key.choices)
    return settings.max_batched_tokens, settings.max_num_seqs


def _of_kv_dtype(keys: Sequence[ConfigKey], serving: ServingChoice) -> list[ConfigKey]:
    if serving.kv_dtypes:
        return [key for key in keys if key.kv_dtype in serving.kv_dtypes]
    return [key for gpu in _by_gpu(keys) for key in _preferred(gpu, [key for key in gpu if key.kv_dtype == "auto"])]


def _of_precision(keys: Sequence[ConfigKey], spec: WorkloadSpec, profile: Profile, catalog: Catalog) -> list[ConfigKey]:
    asked = spec.serving.precisions
    if ANY in asked:
        return [key for gpu in _by_gpu(keys) for key in _least_loaded(gpu, spec, profile)]
    if asked:
        return [key for key in keys if key.precision in asked]
    result = []
    for gpu in _by_gpu(keys):
        try:
            own = precisions_of(catalog.model(gpu[0].model), catalog.gpu(gpu[0].gpu), ServingChoice())[0]
        except InputError:
            own = "fp16"
        result += _preferred(gpu, [key for key in gpu if _plain(key.precision) == _plain(own)])
    return result


def _plain(precision: str) -> str:
    return _SIXTEEN_BITS.get(precision, precision)


def _by_gpu(keys: Iterable[ConfigKey]) -> list[list[ConfigKey]]:
    groups: dict[str, list[ConfigKey]] = {}
    for key in keys:
        groups.setdefault(key.gpu, []).append(key)
    return list(groups.values())


def _preferred(keys: list[ConfigKey], wanted: list[ConfigKey]) -> list[ConfigKey]:
    return wanted or keys


def _least_loaded(keys: Sequence[ConfigKey], spec: WorkloadSpec, profile: Profile) -> list[ConfigKey]:
    """Those of the precision at which the fewest requests cannot be served, then fewest GPUs are kept busy."""
    buckets = spec.workload.buckets()
    demand = np.array([bucket.rate_rps for bucket in buckets])
    sizes = np.array([(bucket.load_input_tokens, bucket.load_output_tokens) for bucket in buckets], dtype=float).T

    def load(precision: str) -> tuple[float, float, int]:
        own = [key for key in keys if key.precision == precision]
        rates = np.stack([np.nan_to_num(profile.configs[key].rate_at(*sizes)) / key.tp for key in own])
        best = rates.max(axis=0)
        lost = float(demand[best <= 0].sum())
        gpus = float((demand[best > 0] / best[best > 0]).sum())
        return lost, gpus, PRECISIONS.index(precision)

    chosen = min({key.precision for key in keys}, key=load)
    return [key for key in keys if key.precision == chosen]


def considered_of(
    spec: WorkloadSpec, profile: Profile, configs: Sequence[ServingConfig], catalog: Catalog
) -> Considered:
    """What a fleet of these configs is the cheapest of."""
    model = configs[0].model
    try:
        checkpoint: str | None = catalog.model(model).precision
    except InputError:
        checkpoint = None
    limits = [_limits(config.key, catalog) for config in configs]
    budgeted = any(config.max_batched_tokens is not None for config in configs)
    limited = any(config.max_num_seqs is not None for config in configs)
    return Considered(
        gpus=tuple(dict.fromkeys(config.instance.gpu for config in configs)),
        prices=("the price file" if spec.prices.file else f"price set {spec.prices.price_set}")
        + (" and owned machines" if any(config.instance.owned for config in configs) else ""),
        precisions=tuple(dict.fromkeys(config.precision for config in configs)),
        tp=tuple(sorted({config.tp for config in configs})),
        checkpoint=checkpoint,
        kv_dtypes=tuple(dict.fromkeys(config.kv_dtype for config in configs)),
        batched_tokens=tuple(sorted({budget for budget, _ in limits})) if budgeted else (),
        sequences=tuple(sorted({sequences for _, sequences in limits})) if limited else (),
        left_out=profile.left_out,
    )
