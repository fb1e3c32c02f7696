"""Candidates: which configurations an estimated profile tries for a workload, and which of them are of no use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from melange.arrays import FloatArray
from melange.capacity.profile import ConfigProfile
from melange.catalog.hardware import Catalog, Gpu
from melange.catalog.instances import InstanceType
from melange.catalog.models import Model
from melange.catalog.offers import offer_names
from melange.errors import InputError
from melange.perfmodel.calibration import Calibration
from melange.perfmodel.estimate import under_calibration
from melange.perfmodel.hardware import ModelledEngine, missing_memory_gib
from melange.perfmodel.sequences import NEARLY, suiting_sequences
from melange.planning.limits import Limits
from melange.planning.spec import ANY, ServingChoice
from melange.serving.config import ConfigKey
from melange.serving.considered import LeftOut
from melange.slo import Slo

TOKEN_BUDGETS = (8192, 4096, 2048, 1024, 512)


@dataclass(frozen=True, slots=True, kw_only=True)
class Machines:
    """What of a price list a workload may rent: the most GPUs of a machine, by GPU type; and what it may not."""

    most_gpus: Mapping[str, int]
    left_out: tuple[LeftOut, ...] = ()


def machines_of(offers: Iterable[InstanceType], limits: Limits, catalog: Catalog) -> Machines:
    """The machines among ``offers`` that the limits allow or that are owned; the catalog's other GPU types, and why."""
    limits = limits.resolved(catalog)
    offered: set[str] = set()
    most: dict[str, int] = {}
    for offer in offers:
        offered.add(offer.gpu)
        names = {offer.gpu, *offer_names(offer)}
        allowed = limits.allowed is None or not names.isdisjoint(limits.allowed)
        if offer.owned or (allowed and names.isdisjoint(limits.exclude)):
            most[offer.gpu] = max(most.get(offer.gpu, 0), offer.gpus)
    left_out = tuple(
        LeftOut(gpu=gpu, reason="not allowed" if gpu in offered else "no offer")
        for gpu in catalog.gpus
        if gpu not in most
    )
    return Machines(most_gpus={gpu: most[gpu] for gpu in catalog.gpus if gpu in most}, left_out=left_out)


def candidates(
    model: Model, machines: Machines, serving: ServingChoice, calibration: Calibration, catalog: Catalog
) -> tuple[list[ModelledEngine], tuple[LeftOut, ...]]:
    """Every configuration that the machines and the serving choice allow and that fits, and what was left out.

    Where the serving choice names no token budget and the calibration no engine's limits, each configuration is there
    with the engine's own budget first, then with the others of ``TOKEN_BUDGETS``.
    """
    found: list[ModelledEngine] = []
    left_out = list(machines.left_out)
    largest = max(machines.most_gpus.values(), default=1)
    for name, most in machines.most_gpus.items():
        gpu = catalog.gpu(name)
        for tp in _degrees(model, serving, largest):
            if tp > most:
                left_out.append(LeftOut(gpu=name, tp=tp, reason="no machine", detail=f"{most} GPUs at most"))
                continue
            for precision in precisions_of(model, gpu, serving):
                ways = _ways(ModelledEngine(model=model, gpu=gpu, tp=tp, precision=precision), serving, calibration)
                fit = [way for way in ways if not missing_memory_gib(way)]
                found += fit
                if not fit:
                    detail = f"{min(map(missing_memory_gib, ways)):.1f} GiB per GPU are missing"
                    left_out.append(LeftOut(gpu=name, tp=tp, precision=precision, reason="does not fit", detail=detail))
    return found, tuple(left_out)


def _degrees(model: Model, serving: ServingChoice, largest: int) -> list[int]:
    """Those asked for, else the powers of two up to the largest machine, that the model's heads allow."""
    powers = [2**power for power in range(largest.bit_length())]
    return [
        tp
        for tp in serving.tp or powers
        if not model.heads % tp and not max(model.kv_heads, tp) % min(model.kv_heads, tp)
    ]


def precisions_of(model: Model, gpu: Gpu, serving: ServingChoice) -> tuple[str, ...]:
    """The precisions that are open on a GPU type: a bf16 checkpoint runs in fp16 where bf16 is not computed."""
    own = "fp16" if model.precision == "bf16" and not gpu.is_native("bf16") else model.precision
    if ANY in serving.precisions:
        return tuple(dict.fromkeys((own, "fp8", "int8")))
    return serving.precisions or (own,)


def _ways(plain: ModelledEngine, serving: ServingChoice, calibration: Calibration) -> list[ModelledEngine]:
    """A configuration with each KV-cache dtype and token budget that is open, and each number of sequences named."""
    usual = plain.engine.max_batched_tokens
    budgets: list[int | None] = [None]
    if serving.batched_tokens:
        budgets = [None if budget == usual else budget for budget in serving.batched_tokens]
    elif calibration.settings is None:
        budgets += [budget for budget in TOKEN_BUDGETS if budget != usual]
    usual_sequences = plain.engine.max_num_seqs
    named = [None if most == usual_sequences else most for most in serving.sequences] or [None]
    return [
        under_calibration(replace(plain, kv_dtype=kv_dtype, max_batched_tokens=budget, max_num_seqs=most), calibration)
        for kv_dtype in serving.kv_dtypes or ("auto",)
        for budget in budgets
        for most in named
        if most is None or budget is None or most <= budget
    ]


def with_sequences(
    kept: Sequence[ModelledEngine],
    tables: Sequence[ConfigProfile],
    serving: ServingChoice,
    calibration: Calibration,
    slo: Slo,
    sizes: tuple[FloatArray, FloatArray, FloatArray],
    rate_rps: FloatArray,
) -> list[ModelledEngine]:
    """Configurations with the numbers of sequences that suit a workload, beside those that leave it to the engine.

    ``sizes`` are the workload's input, output and cached tokens, ``rate_rps`` its demand, (n,) each; ``tables`` the
    rates of ``kept``. Of what differs in the token budget alone, that of the least load gets them. None where the
    serving choice names numbers or the calibration an engine's limits.
    """
    if serving.sequences or calibration.settings is not None or not slo.thresholds_s:
        return []
    least: dict[ConfigKey, tuple[float, ModelledEngine]] = {}
    for modelled, table in zip(kept, tables, strict=True):
        rates = np.maximum(np.nan_to_num(table.rate_at(*sizes[:2])), 1e-9)
        load = float((rate_rps / rates).sum())
        kind = _kind(modelled)
        if kind not in least or load < least[kind][0]:
            least[kind] = load, modelled
    return [
        replace(modelled, max_num_seqs=number)
        for _, modelled in least.values()
        for number in suiting_sequences(modelled, slo, *sizes, rate_rps, calibration=calibration)
    ]


def _kind(modelled: ModelledEngine) -> ConfigKey:
    """What configurations share that differ in their engine's limits alone."""
    return modelled.key._replace(max_batched_tokens=None, max_num_seqs=None)


def useful(
    modelled_engines: Sequence[ModelledEngine],
    tables: Sequence[ConfigProfile],
    input_tokens: FloatArray,
    output_tokens: FloatArray,
) -> list[ModelledEngine]:
    """Those whose token budget and sequences no other ones match: one with all else the same and nowhere a lower rate.

    ``tables`` are their rates; ``input_tokens`` and ``output_tokens`` (n,) the sizes that the workload has. Of equals
    the first stays.
    """
    alike: dict[ConfigKey, list[int]] = {}
    for index, modelled in enumerate(modelled_engines):
        alike.setdefault(_kind(modelled), []).append(index)
    rates = [table.rate_at(input_tokens, output_tokens) for table in tables]
    kept: list[int] = []
    for members in alike.values():
        chosen: list[int] = []
        for index in members:
            if not any(_no_lower(rates[other], rates[index]) for other in chosen):
                chosen = [other for other in chosen if not _no_lower(rates[index], rates[other])] + [index]
        kept += chosen
    return [modelled_engines[index] for index in sorted(kept)]


def _no_lower(one: FloatArray, other: FloatArray) -> bool:
    return bool(np.all(one >= other * (1 - NEARLY)))


def refused(model: Model, left_out: Sequence[LeftOut]) -> InputError:
    """That nothing is left to estimate, with the last reasons."""
    rows = [entry for entry in left_out if entry.tp is not None]
    why = "; ".join(
        f"{entry.gpu} TP {entry.tp}{f' {entry.precision}' if entry.precision else ''}: {entry.detail}"
        for entry in rows[-3:]
    )
    return InputError(
        f"{model.name} fits none of the configurations asked for: {why or 'there is none'}",
        fix="allow more GPUs, more degrees (--tp) or another precision (--precision)",
    )
