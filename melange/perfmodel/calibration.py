"""Calibration: efficiencies with what is known about them, and the YAML file that keeps them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, get_args

import yaml

from melange.arrays import five_digits
from melange.capacity.basis import Basis
from melange.catalog.hardware import load_catalog
from melange.errors import InputError
from melange.files.documents import Document, read_document
from melange.files.records import from_plain, to_plain
from melange.files.text import write_atomic
from melange.serving.clocks import ClockKind
from melange.serving.efficiencies import PRIORS, Efficiencies
from melange.serving.engine_settings import EngineSettings

FILE_VERSION = 1

Label = Literal["prior", "throughput-only", "full"]

# Log error of the model's form where nothing was measured: a judgement, wider than any held-out error seen so far.
PRIOR_MODEL_ERROR = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Efficiencies, how well each is known, and how wrong the model was on data it had not seen.

    ``spreads`` are standard deviations of the efficiencies' logarithms, ``fitted`` names those that data identified
    (the others stay at their prior). ``label`` is ``full`` when latencies at two or more concurrencies were among the
    data, ``throughput-only`` when they were not (rates bound by a latency limit then rest on priors), ``prior``
    without data. ``settings`` are the measured engine's, None for each GPU's defaults. ``model_error`` is the standard
    deviation of the log error on held-out points. ``gpu_efficiencies`` are those of GPU types that were measured
    themselves, in place of those common to all. ``clock`` is what the efficiencies were fitted to.
    """

    name: str = "prior"
    efficiencies: Efficiencies = field(default_factory=Efficiencies)
    gpu_efficiencies: Mapping[str, Efficiencies] = field(default_factory=dict)
    spreads: Mapping[str, float] = field(default_factory=lambda: {name: prior.spread for name, prior in PRIORS.items()})
    fitted: tuple[str, ...] = ()
    label: Label = "prior"
    settings: EngineSettings | None = None
    clock: ClockKind = "kernels"
    model_error: float = PRIOR_MODEL_ERROR
    errors: Mapping[str, object] = field(default_factory=dict)
    provenance: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if set(self.spreads) != set(PRIORS) or not all(value >= 0 for value in self.spreads.values()):
            raise InputError("calibration: spreads do not cover the efficiencies", fix="give one >= 0 for each")
        unknown = set(self.fitted) - set(PRIORS)
        if unknown:
            raise InputError(f"calibration: unknown efficiency {sorted(unknown)[0]!r}", fix=f"use {', '.join(PRIORS)}")
        if self.label not in get_args(Label):
            raise InputError(f"calibration: label is {self.label!r}", fix=f"use {', '.join(get_args(Label))}")
        if self.clock not in get_args(ClockKind):
            raise InputError(f"calibration: clock is {self.clock!r}", fix=f"use {', '.join(get_args(ClockKind))}")
        if not self.model_error >= 0:
            raise InputError(f"calibration: model_error is {self.model_error}", fix="give a figure of at least 0")
        for name in ("gpu_efficiencies", "spreads", "errors", "provenance"):
            if not isinstance(getattr(self, name), Mapping):
                raise InputError(f"calibration: {name} is no mapping", fix="let 'melange calibrate' write the file")
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    def efficiencies_of(self, gpu: str) -> Efficiencies:
        """A GPU type's own where it was measured itself, else those common to all."""
        return self.gpu_efficiencies.get(gpu, self.efficiencies)

    def describe(self) -> str:
        """One line for people."""
        if self.label == "prior":
            if self.clock == "datasheet":
                return "from datasheets, not calibrated"
            return "from public measurements of kernels and engines, not calibrated"
        return (
            f"calibrated on {self.name} ({self.label}; held-out error {self.errors.get('held_out_median', 'unknown')})"
        )

    def to_dict(self) -> dict[str, object]:
        """YAML-ready; the inverse of :func:`read_calibration`."""
        return {
            "version": FILE_VERSION,
            "name": self.name,
            "label": self.label,
            "efficiencies": {
                name: {
                    "value": five_digits(value),
                    "spread": float(f"{self.spreads[name]:.3g}"),
                    "from": "data" if name in self.fitted else "prior",
                }
                for name, value in to_plain(self.efficiencies).items()
            },
            "clock": self.clock,
            "gpu_efficiencies": {
                gpu: {name: five_digits(value) for name, value in to_plain(own).items()}
                for gpu, own in self.gpu_efficiencies.items()
            },
            "model_error": float(f"{self.model_error:.3g}"),
            "settings": None if self.settings is None else to_plain(self.settings),
            "errors": _plain(self.errors),
            "provenance": _plain(self.provenance),
        }


def basis_of(calibration: Calibration) -> Basis:
    """What clocks of rates that were estimated under a calibration are made from."""
    return Basis(
        efficiencies=calibration.efficiencies,
        gpu_efficiencies=calibration.gpu_efficiencies,
        engine_settings=calibration.settings,
        clock=calibration.clock,
    )


def write_calibration(path: str | os.PathLike[str], calibration: Calibration) -> None:
    """Write a calibration file in one step."""
    head = "# Written by 'melange calibrate'. Efficiencies are explained in melange/serving/efficiencies.py.\n"
    write_atomic(path, head + yaml.safe_dump(calibration.to_dict(), sort_keys=False, width=110))


def read_calibration(path: str | os.PathLike[str]) -> Calibration:
    """Read a calibration file; anything wrong in it raises InputError with its line."""
    document = read_document(path)
    data = dict(document.data)
    version = data.pop("version", None)
    if version != FILE_VERSION:
        raise document.error(("version",), f"calibration version is {version!r}", f"this Mélange reads {FILE_VERSION}")
    rows = data.pop("efficiencies", None)
    if not isinstance(rows, Mapping):
        raise document.error((), "it holds no efficiencies", "write one with 'melange calibrate'")
    settings = data.pop("settings", None)
    data.setdefault("clock", "datasheet")  # files from before there was a choice
    try:
        values = {name: _figure(document, name, row, "value") for name, row in rows.items()}
        unknown = set(values) - set(PRIORS)
        if unknown or set(PRIORS) - set(values):
            odd = sorted(unknown or set(PRIORS) - set(values))[0]
            raise InputError(f"efficiency {odd!r} is {'unknown' if unknown else 'missing'}", fix="calibrate again")
        return Calibration(
            efficiencies=Efficiencies(**values),
            spreads={name: _figure(document, name, row, "spread") for name, row in rows.items()},
            fitted=tuple(name for name, row in rows.items() if row.get("from") == "data"),
            settings=None if settings is None else _settings(settings),
            gpu_efficiencies={gpu: _of_gpu(own) for gpu, own in _mapping(data.pop("gpu_efficiencies", None)).items()},
            **data,
        )
    except InputError as error:
        raise error.located(path) from error
    except TypeError as error:
        raise InputError(f"not a calibration: {error}", file=path, fix="write one with 'melange calibrate'") from error


def _mapping(value: object) -> Mapping[str, object]:
    if not isinstance(value, Mapping | None):
        raise InputError("calibration: gpu_efficiencies is no mapping", fix="let 'melange calibrate' write the file")
    known = load_catalog()
    found = {}
    for name, row in (value or {}).items():
        if not isinstance(name, str):
            raise InputError(f"calibration: {name!r} is no GPU", fix="name GPUs under gpu_efficiencies")
        canonical = next((gpu.name for gpu in known.gpus.values() if name in (gpu.name, *gpu.aliases)), name)
        found[canonical] = row
    return found


def _of_gpu(row: object) -> Efficiencies:
    missing = sorted(set(PRIORS) - set(row)) if isinstance(row, Mapping) else []
    if missing:
        raise InputError(f"calibration: a GPU's efficiency {missing[0]!r} is missing", fix="calibrate again")
    return from_plain(Efficiencies, row, "a GPU's efficiencies", fix="let 'melange calibrate' write the file")


def _settings(row: object) -> EngineSettings:
    return from_plain(EngineSettings, row, "engine settings", fix="use the fields that 'melange calibrate' writes")


def _figure(document: Document, name: str, row: object, key: str) -> float:
    value = row.get(key) if isinstance(row, Mapping) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise document.error(("efficiencies", name), f"efficiency {name} has no number {key!r}", "calibrate again")
    return float(value)


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
