"""What runs on a rented machine: a serving config, and the key that it shares with others of its kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from melange.catalog.instances import InstanceType
from melange.catalog.precisions import PRECISIONS
from melange.errors import InputError

KV_DTYPES = ("auto", "fp8")
"""What the KV cache is kept in: the engine's default, or fp8."""


class ConfigKey(NamedTuple):
    """What is served on what and how, price and machine left out: two rented offers of the same kind share it.

    ``max_batched_tokens`` is the most tokens that the engine computes in one iteration, None what it chooses itself.
    """

    model: str
    gpu: str
    tp: int
    precision: str
    engine: str
    kv_dtype: str = "auto"
    max_batched_tokens: int | None = None

    def describe(self) -> str:
        how = ", ".join((self.precision, *_choices(self.kv_dtype, self.max_batched_tokens), self.engine))
        return f"{self.model} on {self.tp}x{self.gpu} ({how})"

    def row(self) -> dict[str, object]:
        """By name, as files hold it: choices left at their default are left out."""
        return {name: value for name, value in self._asdict().items() if value != self._field_defaults.get(name)}

    @property
    def order(self) -> tuple[object, ...]:
        """What keys are sorted by: None cannot be compared with a number."""
        return (*self[:-1], self.max_batched_tokens or 0)


def _choices(kv_dtype: str, max_batched_tokens: int | None) -> list[str]:
    """``kv-fp8`` and ``bt2048``, what is left at its default left out."""
    return [
        *([f"kv-{kv_dtype}"] if kv_dtype != "auto" else []),
        *([f"bt{max_batched_tokens}"] if max_batched_tokens is not None else []),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingConfig:
    """A model on an engine at a precision and tensor-parallel degree, on an instance type."""

    instance: InstanceType
    model: str
    engine: str = "vllm"
    precision: str = "fp16"
    tp: int = 1
    kv_dtype: str = "auto"
    max_batched_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.kv_dtype not in KV_DTYPES:
            raise InputError(f"KV-cache dtype is {self.kv_dtype!r}", fix=f"use one of {', '.join(KV_DTYPES)}")
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
        return ConfigKey(
            self.model,
            self.instance.gpu,
            self.tp,
            self.precision,
            self.engine,
            self.kv_dtype,
            self.max_batched_tokens,
        )

    @property
    def name(self) -> str:
        """``<instance>[/tp<N>][/<precision>][/kv-fp8][/bt<tokens>][/<engine>]``, parts left out at their default."""
        parts = [self.instance.key]
        parts += [f"tp{self.tp}"] if self.tp != 1 else []
        parts += [self.precision] if self.precision not in ("fp16", "bf16") else []
        parts += _choices(self.kv_dtype, self.max_batched_tokens)
        parts += [self.engine] if self.engine != "vllm" else []
        return "/".join(parts)
