"""What hardware and models are: GPUs and language models with sourced physical figures."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cache, partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from melange.catalog.models import Model
from melange.catalog.precisions import RATES, computed_in
from melange.errors import InputError
from melange.files.shipped import shipped_yaml
from melange.files.shown import short_repr

if TYPE_CHECKING:
    from pandas import DataFrame

MOST = 1e30  # beyond any figure of hardware; whole numbers may be beyond all floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU type's physical figures.

    ``memory_gib`` is what software can use. ``tflops`` gives dense rates per *natively computed* precision; a
    precision that is absent can still be stored (weights are read at its size) but computes at fp16.
    ``interconnect_gb_s`` is one direction of the GPU-to-GPU link.
    """

    name: str
    memory_gib: float
    bandwidth_gb_s: float
    tflops: Mapping[str, float]
    interconnect: str
    interconnect_gb_s: float
    vendor: str = "nvidia"
    aliases: tuple[str, ...] = ()
    source: str = ""

    def __post_init__(self) -> None:
        for name in ("memory_gib", "bandwidth_gb_s", "interconnect_gb_s"):
            value = getattr(self, name)
            if not 0 < value < MOST:
                raise InputError(f"GPU {self.name}: {name} is {value}", fix="give a positive figure")
        if "fp16" not in self.tflops:
            raise InputError(f"GPU {self.name}: tflops has no fp16 rate", fix="give dense fp16 TFLOPS")
        for precision, rate in self.tflops.items():
            if precision not in RATES or not 0 < rate < MOST:
                raise InputError(
                    f"GPU {self.name}: tflops {precision}: {rate}", fix=f"use precisions {', '.join(RATES)}"
                )
        object.__setattr__(self, "tflops", MappingProxyType(dict(self.tflops)))

    def __hash__(self) -> int:
        # A read-only mapping cannot be hashed; equality looks at every figure.
        return hash((self.name, self.memory_gib, self.bandwidth_gb_s))

    def __reduce__(self) -> tuple[Callable[[], Gpu], tuple[()]]:
        # A read-only mapping cannot be pickled; other processes get the plain values.
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return partial(Gpu, **{**values, "tflops": dict(self.tflops)}), ()

    def is_native(self, precision: str) -> bool:
        """Whether the GPU computes in this precision (else it only stores it and computes in fp16)."""
        return computed_in(precision) in self.tflops

    def compute_tflops(self, precision: str) -> float:
        """Dense rate that a model stored in ``precision`` computes at."""
        return self.tflops.get(computed_in(precision) or "fp16", self.tflops["fp16"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """The shipped GPUs and models, looked up by name or alias."""

    gpus: Mapping[str, Gpu] = field(default_factory=dict)
    models: Mapping[str, Model] = field(default_factory=dict)

    def gpu(self, name: str) -> Gpu:
        """The GPU of this name or alias (case-insensitive); an unknown one raises with the nearest names."""
        return _lookup("GPU", name, self.gpus.values())

    def model(self, name: str) -> Model:
        """The model of this name or alias (case-insensitive); an unknown one raises with the nearest names."""
        return _lookup("model", name, self.models.values())

    def __repr__(self) -> str:
        return short_repr("Catalog", f"{len(self.gpus)} GPUs, {len(self.models)} models: {', '.join(self.gpus)}")

    def gpus_frame(self) -> DataFrame:
        """One row a GPU type.

        Index ``gpu``. Columns: ``memory_gib``, ``bandwidth_gb_s``, ``interconnect``, ``interconnect_gb_s``, and
        ``<precision>_tflops`` (dense; NaN where the GPU does not compute in it).
        """
        import pandas as pd

        names = ("memory_gib", "bandwidth_gb_s", "interconnect", "interconnect_gb_s")
        rows = [
            {name: getattr(gpu, name) for name in names} | {f"{kind}_tflops": rate for kind, rate in gpu.tflops.items()}
            for gpu in self.gpus.values()
        ]
        return pd.DataFrame(rows, index=pd.Index(list(self.gpus), name="gpu"))

    def models_frame(self) -> DataFrame:
        """One row a model.

        Index ``model``. Columns: ``parameters``, ``active_parameters``, ``layers``, ``hidden``, ``heads``,
        ``kv_heads``, ``experts``, ``max_context_tokens``, and ``fp16_weight_gib``.
        """
        import pandas as pd

        names = ("parameters", "active_parameters", "layers", "hidden", "heads", "kv_heads", "experts")
        rows = [
            {name: getattr(model, name) for name in (*names, "max_context_tokens")}
            | {"fp16_weight_gib": model.weight_bytes("fp16") / 2**30}
            for model in self.models.values()
        ]
        return pd.DataFrame(rows, index=pd.Index(list(self.models), name="model"))


T = TypeVar("T", Gpu, Model)


def figures_of(entry: Gpu | Model) -> dict[str, Any]:
    """An entry's figures, JSON-ready: what ``Gpu(**row)`` and ``Model(**row)`` take, without aliases and source."""
    row = {
        item.name: getattr(entry, item.name)
        for item in fields(entry)
        if item.name not in ("aliases", "source", "unread")
    }
    return {name: dict(value) if isinstance(value, Mapping) else value for name, value in row.items()}


def _lookup(kind: str, name: str, entries: Iterable[T]) -> T:
    known: dict[str, T] = {key.lower(): entry for entry in entries for key in _names(entry)}
    found = known.get(name.lower())
    if found is not None:
        return found
    near = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.4)
    names = ", ".join(dict.fromkeys(known[key].name for key in near))
    listing = "melange gpus" if kind == "GPU" else "melange gpus --models"
    hint = f"did you mean {names}? " if names else ""
    raise InputError(f"unknown {kind} {name!r}", fix=f"{hint}'{listing}' lists what is known")


def _names(entry: Gpu | Model) -> tuple[str, ...]:
    return (entry.name, *entry.aliases)


@cache
def load_catalog() -> Catalog:
    """The catalog that ships with Mélange (``profiles/catalog``)."""
    gpus = shipped_yaml("profiles/catalog/gpus.yaml")
    models = shipped_yaml("profiles/catalog/models.yaml")
    return Catalog(
        gpus={name: Gpu(name=name, **_tuples(row)) for name, row in gpus["gpus"].items()},
        models={name: Model(name=name, **_tuples(row)) for name, row in models["models"].items()},
    )


def _tuples(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
