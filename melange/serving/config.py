"""What runs on a rented machine: a serving config, and the key that it shares with others of its kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from melange.catalog.instances import InstanceType
from melange.catalog.precisions import PRECISIONS
from melange.errors import InputError

KV_DTYPES = ("auto", "fp8")
"""What the KV cache is kept in: the engine's default, or fp8."""


class ConfigKey(NamedTuple):
    """What is served on what and how, price and machine left out: two rented offers of the same kind share it.

    ``max_batched_tokens`` is the most tokens that the engine computes in one iteration, ``max_num_seqs`` the most
    requests that it runs at once; None is what it chooses itself.
    """

    model: str
    gpu: str
    tp: int
    precision: str
    engine: str
    kv_dtype: str = "auto"
    max_batched_tokens: int | None = None
    max_num_seqs: int | None = None

    @classmethod
    def of(cls, source: object) -> ConfigKey:
        """The key of a value that has its fields under the same names."""
        return cls(*(getattr(source, name) for name in cls._fields))

    @property
    def choices(self) -> dict[str, Any]:
        """What is chosen of the engine itself, by field: what stands in place of its settings."""
        return {name: getattr(self, name) for name in CHOICES}

    def describe(self) -> str:
        how = ", ".join((self.precision, *choice_names(self), self.engine))
        return f"{self.model} on {self.tp}x{self.gpu} ({how})"

    def row(self) -> dict[str, object]:
        """By name, as files hold it: choices left at their default are left out."""
        return {name: value for name, value in self._asdict().items() if value != self._field_defaults.get(name)}

    @property
    def order(self) -> tuple[object, ...]:
        """What keys are sorted by: None cannot be compared with a number."""
        return tuple(0 if value is None else value for value in self)


CHOICES = ("kv_dtype", "max_batched_tokens", "max_num_seqs")
"""Fields of a key, and of whatever has one, that are choices among the engine's settings."""


class Chosen(Protocol):
    """What has the choices of a key."""

    @property
    def kv_dtype(self) -> str: ...
    @property
    def max_batched_tokens(self) -> int | None: ...
    @property
    def max_num_seqs(self) -> int | None: ...


def choice_names(chosen: Chosen) -> list[str]:
    """``kv-fp8``, ``bt2048`` and ``s64``, what is left at its default left out."""
    return [
        *([f"kv-{chosen.kv_dtype}"] if chosen.kv_dtype != "auto" else []),
        *([f"bt{chosen.max_batched_tokens}"] if chosen.max_batched_tokens is not None else []),
        *([f"s{chosen.max_num_seqs}"] if chosen.max_num_seqs is not None else []),
    ]


def check_limits(max_batched_tokens: int | None, max_num_seqs: int | None) -> None:
    """Refuse limits of an iteration that no engine takes; None is the engine's own."""
    for what, value in (("token budget", max_batched_tokens), ("number of sequences", max_num_seqs)):
        if value is not None and value < 1:
            raise InputError(f"{what} of an iteration is {value}", fix="give a whole number from 1")
    if max_batched_tokens is not None and max_num_seqs is not None and max_num_seqs > max_batched_tokens:
        raise InputError(
            f"an iteration of {max_batched_tokens} tokens holds no {max_num_seqs} sequences, each of which takes one",
            fix="choose a budget of at least as many tokens as sequences",
        )


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
    max_num_seqs: int | None = None

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
        check_limits(self.max_batched_tokens, self.max_num_seqs)

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
            self.max_num_seqs,
        )

    @property
    def name(self) -> str:
        """``<instance>[/tp<N>][/<precision>][/kv-fp8][/bt<tokens>][/s<requests>][/<engine>]``, defaults left out."""
        parts = [self.instance.key]
        parts += [f"tp{self.tp}"] if self.tp != 1 else []
        parts += [self.precision] if self.precision not in ("fp16", "bf16") else []
        parts += choice_names(self)
        parts += [self.engine] if self.engine != "vllm" else []
        return "/".join(parts)
