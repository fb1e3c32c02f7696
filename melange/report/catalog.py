"""The catalog as tables, JSON or CSV: GPUs with their offers, and models."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import date
from typing import Any

from rich.console import Group

from melange.catalog.hardware import Catalog, Gpu
from melange.catalog.instances import InstanceType
from melange.catalog.models import Model
from melange.catalog.offers import price_age_days
from melange.report.tables import rendered, table


def render_gpus(gpus: Sequence[Gpu], offers: Sequence[InstanceType], output: str, *, today: date) -> str:
    """GPUs and their offers; the age of each price counts to ``today``."""
    if output == "json":
        rows = [{**_row(offer), "price_age_days": price_age_days(offer.read_on, today)} for offer in offers]
        return json.dumps({"schema_version": 1, "gpus": [_row(gpu) for gpu in gpus], "offers": rows}, indent=2)
    if output == "csv":
        return _csv([{**_row(offer), "price_age_days": price_age_days(offer.read_on, today)} for offer in offers])
    return rendered(_gpu_table(gpus), "", _offer_table(offers, today))


def _gpu_table(gpus: Sequence[Gpu]) -> Group:
    rows = [
        (
            gpu.name,
            f"{gpu.memory_gib:g}",
            f"{gpu.bandwidth_gb_s:g}",
            f"{gpu.tflops['fp16']:g}",
            f"{gpu.tflops['fp8']:g}" if gpu.is_native("fp8") else "stored only",
            f"{gpu.interconnect} {gpu.interconnect_gb_s:g}",
            ", ".join(gpu.aliases),
        )
        for gpu in gpus
    ]
    columns = ("GPU", "GiB", "GB/s", "fp16 TFLOPS", "fp8 TFLOPS", "link, GB/s one way", "also called")
    return table("GPUs (usable memory, peak bandwidth, dense compute)", columns, rows)


def _offer_table(offers: Sequence[InstanceType], today: date) -> Group:
    rows = []
    for offer in sorted(offers, key=lambda o: (o.price_set, o.gpu, o.gpus, o.price_usd_per_hour)):
        age = price_age_days(offer.read_on, today)
        rows.append(
            (
                offer.gpu,
                str(offer.gpus),
                offer.name,
                offer.provider + (" spot" if offer.spot else ""),
                f"{offer.price_usd_per_hour:.3f}",
                f"{offer.price_usd_per_hour / offer.gpus:.3f}",
                offer.price_set,
                (offer.read_on or "unknown") if age is None else f"{age} days",
            )
        )
    columns = ("GPU", "count", "instance", "provider", "$/h", "$/GPU/h", "price set", "price's age")
    return table("Offers (a spot price outside its day is a guess)", columns, rows)


def render_models(catalog: Catalog, output: str) -> str:
    """The catalog's models."""
    if output == "json":
        return json.dumps({"schema_version": 1, "models": [_row(m) for m in catalog.models.values()]}, indent=2)
    if output == "csv":
        return _csv([_row(model) for model in catalog.models.values()])
    rows = [_model_row(model) for model in catalog.models.values()]
    columns = ("model", "parameters", "active", "layers", "heads", "experts", "context", "precision")
    return rendered(table("Models", columns, rows))


def _model_row(model: Model) -> tuple[str, ...]:
    return (
        model.name,
        f"{model.parameters / 1e9:.1f}e9",
        f"{model.active_parameters / 1e9:.1f}e9",
        str(model.layers),
        f"{model.heads}/{model.kv_heads}x{model.head_size}",
        f"{model.experts_per_token} of {model.experts}" if model.experts > 1 else "-",
        str(model.max_context_tokens),
        model.precision,
    )


def _row(value: Gpu | Model | InstanceType) -> dict[str, Any]:
    row = {item.name: getattr(value, item.name) for item in fields(value)}
    return {key: dict(item) if isinstance(item, Mapping) else item for key, item in row.items()}


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: " ".join(v) if isinstance(v, tuple) else v for k, v in row.items()} for row in rows)
    return out.getvalue().rstrip("\n")
