"""What runs on a rented machine: a serving config, and the key that it shares with others of its kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from melange.catalog.hardware import PRECISIONS
from melange.catalog.instances import InstanceType
from melange.errors import InputError


class ConfigKey(NamedTuple):
    """What is served on what, price and machine left out: two rented offers of the same kind share it."""

    model: str
    gpu: str
    tp: int
    precision: str
    engine: str

    def describe(self) -> str:
        return f"{self.model} on {self.tp}x{self.gpu} ({self.precision}, {self.engine})"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingConfig:
    """A model on an engine at a precision and tensor-parallel degree, on an instance type."""

    instance: InstanceType
    model: str
    engine: str = "vllm"
    precision: str = "fp16"
    tp: int = 1

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise InputError(f"precision is {self.precision!r}", fix=f"use one of {', '.join(PRECISIONS)}")
        if not 1 <= self.tp <= self.instance.gpus:
            raise InputError(
                f"tensor-parallel degree {self.tp} does not fit {self.instance.name} with {self.instance.gpus} GPUs",
                fix="use a degree up to the instance's GPU count",
            )

    @property
    def key(self) -> ConfigKey:
        """What its measurements are filed under."""
        return ConfigKey(self.model, self.instance.gpu, self.tp, self.precision, self.engine)

    @property
    def name(self) -> str:
        """``<instance>[/tp<N>][/<precision>][/<engine>]``, parts left out at their default."""
        parts = [self.instance.key]
        parts += [f"tp{self.tp}"] if self.tp != 1 else []
        parts += [self.precision] if self.precision not in ("fp16", "bf16") else []
        parts += [self.engine] if self.engine != "vllm" else []
        return "/".join(parts)
