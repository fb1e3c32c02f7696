"""PlanConfig: a serving configuration that a plan could use, and the offers that it left out."""

from __future__ import annotations

from dataclasses import dataclass

from melange.capacity.rates import RateTable
from melange.catalog.hardware import Gpu
from melange.catalog.models import Model
from melange.serving.config import ConfigKey


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanConfig:
    """One serving configuration that the plan could use: ``tp`` of an instance's GPUs that run a model on an engine.

    ``instance`` is the provider's name of the machine, ``instance_key`` the one it goes by in Plan.instances.
    ``precision`` and ``engine`` are ``unspecified`` where the source does not say. ``kv_dtype``,
    ``max_batched_tokens`` and ``max_num_seqs`` are settings of the engine that the config chooses, ``auto`` and None
    what it takes itself.
    ``price_usd_per_hour`` is that of one whole instance, 0 of an ``owned`` one; of the set ``price_set``, read on
    ``price_read_on`` (ISO 8601, possibly partial). ``headroom``: its load was scaled by 1 + headroom. ``sources``: what
    its rates rest on (``measured``, ``published``, ``estimated``). ``hardware`` and ``model_shape`` are the catalog's
    figures (without aliases and source), None where it has none; ``profile`` is the max-rate table, None where only
    bucket rates are known.
    """

    gpu: str
    instance: str
    instance_key: str
    gpus_per_instance: int
    tp: int
    precision: str
    engine: str
    model: str | None
    price_usd_per_hour: float
    provider: str | None = None
    region: str | None = None
    spot: bool = False
    kv_dtype: str = "auto"
    max_batched_tokens: int | None = None
    max_num_seqs: int | None = None
    price_set: str | None = None
    price_read_on: str | None = None
    headroom: float = 0.0
    sources: tuple[str, ...] = ()
    hardware: Gpu | None = None
    model_shape: Model | None = None
    profile: RateTable | None = None
    owned: bool = False

    @property
    def key(self) -> ConfigKey | None:
        """What is served and on which GPUs, whoever rents them out; None where the model is not told."""
        if self.model is None:
            return None
        return ConfigKey.of(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOutOffer:
    """An offer that the plan does not consider, and which cheaper one stands for it."""

    instance: str
    gpu: str
    provider: str
    reason: str
