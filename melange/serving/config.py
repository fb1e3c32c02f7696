"""ServingConfig: what runs on a rented machine."""

from __future__ import annotations

from dataclasses import dataclass

from melange.catalog.hardware import PRECISIONS
from melange.catalog.instances import InstanceType
from melange.errors import InputError


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
    def name(self) -> str:
        """``<instance>[/tp<N>][/<precision>][/<engine>]``, parts left out at their default."""
        parts = [self.instance.key]
        parts += [f"tp{self.tp}"] if self.tp != 1 else []
        parts += [self.precision] if self.precision not in ("fp16", "bf16") else []
        parts += [self.engine] if self.engine != "vllm" else []
        return "/".join(parts)
