"""What the catalog does not know: GPUs given by their figures, beside models by their config.json."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields
from typing import Any

from melange.catalog.hardware import Catalog, Gpu
from melange.catalog.model_config import model_from_config
from melange.errors import InputError
from melange.files.documents import Document, read_document

_TEXTS = ("interconnect", "vendor", "source")


def extended_catalog(
    catalog: Catalog,
    gpu_files: Iterable[str | os.PathLike[str]] = (),
    model_configs: Iterable[str | os.PathLike[str]] = (),
) -> Catalog:
    """The catalog with the described GPUs and models added; a described one replaces its namesake."""
    gpus, models = dict(catalog.gpus), dict(catalog.models)
    for file in gpu_files:
        gpus |= {gpu.name: gpu for gpu in read_gpus(file)}
    for file in model_configs:
        model = model_from_config(file)
        models[model.name] = model
    return Catalog(gpus=gpus, models=models)


def read_gpus(file: str | os.PathLike[str]) -> tuple[Gpu, ...]:
    """GPUs from a YAML file shaped like the catalog's: ``gpus: {NAME: {memory_gib: ..., bandwidth_gb_s: ..., ...}}``.

    Unknown or missing figures, and impossible ones, raise InputError with the line.
    """
    document = read_document(file)
    rows = document.data.get("gpus")
    if not isinstance(rows, Mapping) or not rows:
        raise document.error(("gpus",), "it describes no GPUs", "write 'gpus:' with one entry per GPU")
    known = {item.name: item.default is MISSING and item.default_factory is MISSING for item in fields(Gpu)}
    result = []
    for name, row in rows.items():
        if not isinstance(row, Mapping):
            raise document.error(("gpus", name), f"GPU {name} is not a mapping of figures")
        for key in row:
            if key not in known or key == "name":
                allowed = ", ".join(set(known) - {"name"})
                raise document.error(("gpus", name, key), f"GPU {name}: unknown figure {key!r}", f"use {allowed}")
        for key, required in known.items():
            if required and key != "name" and key not in row:
                raise document.error(("gpus", name), f"GPU {name}: {key} is missing", "give it")
        _check_kinds(document, str(name), row)
        try:
            figures: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in row.items()}
            result.append(Gpu(name=str(name), **figures))
        except InputError as error:
            raise document.error(("gpus", name), error.problem, error.fix) from error
    return tuple(result)


def _check_kinds(document: Document, name: str, row: Mapping[str, Any]) -> None:
    """Raise, at its line, for a figure that is no number or a name that is no text."""
    for key, value in row.items():
        numbers = list(value.values()) if key == "tflops" and isinstance(value, Mapping) else [value]
        if key in _TEXTS:
            good, wanted = isinstance(value, str), "a text"
        elif key == "aliases":
            good, wanted = isinstance(value, list) and all(isinstance(one, str) for one in value), "a list of names"
        else:
            good = all(isinstance(one, int | float) and not isinstance(one, bool) for one in numbers)
            wanted = "rates by precision, such as {fp16: 300}" if key == "tflops" else "a number"
            good = good and (key != "tflops" or isinstance(value, Mapping))
        if not good:
            raise document.error(("gpus", name, key), f"GPU {name}: {key} is not {wanted}", f"give {wanted}")
