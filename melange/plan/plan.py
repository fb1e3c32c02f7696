"""Plan: the answer to a workload, self-contained, and plan.json, the file that every later command reads."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from melange.errors import InputError
from melange.files.documents import Document, check_schema
from melange.files.text import parse_json, read_text, write_atomic
from melange.slo import Slo

SCHEMA_VERSION = 1
HOURS_PER_MONTH = 730.0

Status = Literal["optimal", "feasible", "infeasible", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanConfig:
    """One serving configuration that the plan could use.

    ``price_usd_per_hour`` is that of one whole instance. ``hardware`` and ``model_shape`` are the catalog's figures,
    ``profile`` the max-rate table (see ConfigProfile.to_dict), None where only bucket rates are known.
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
    price_set: str | None = None
    price_read_on: str | None = None
    headroom: float = 0.0
    sources: tuple[str, ...] = ()
    hardware: Mapping[str, Any] | None = None
    model_shape: Mapping[str, Any] | None = None
    profile: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanBucket:
    """One size bucket: its edges (None when unknown), demand, true means, and who serves it.

    ``load_input_tokens`` and ``load_output_tokens`` are the sizes its load was taken at. ``shares`` maps a config to
    its share of the bucket (absent = 0, sums to 1; empty where an attainment SLO lets it be late), ``max_rate_rps``
    maps a config to its highest rate on this bucket alone (0 = cannot meet the SLO, None = not measured), ``sources``
    to what that rate rests on (``measured``, ``published``, ``estimated``).
    """

    input_tokens_max: int | None
    output_tokens_max: int | None
    rate_rps: float
    mean_input_tokens: float | None = None
    mean_output_tokens: float | None = None
    mean_product_tokens2: float | None = None
    mean_cached_tokens: float | None = None
    load_input_tokens: float | None = None
    load_output_tokens: float | None = None
    shares: Mapping[str, float] = field(default_factory=dict)
    max_rate_rps: Mapping[str, float | None] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return f"{self.input_tokens_max}x{self.output_tokens_max}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """The cheapest fleet of one GPU type alone, or why there is none. ``savings`` is the plan's share saved on it."""

    instances: Mapping[str, int] | None = None
    replicas: Mapping[str, int] | None = None
    cost_usd_per_hour: float | None = None
    savings: float | None = None
    proven: bool = True
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanLimit:
    """A limit that was asked for, how much of it the plan uses, and whether it binds."""

    name: str
    kind: Literal["max", "min", "max_cost"]
    value: float
    used: float
    binding: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """The fleet's cost per month (730 h) and per million tokens at the workload's true means.

    ``usd_per_million_input_tokens`` and ``..._output_tokens`` each divide the *whole* cost by that kind of token
    alone; ``usd_per_million_tokens`` divides it by both kinds together. None where sizes are unknown.
    """

    usd_per_hour: float
    usd_per_month: float
    usd_per_million_tokens: float | None = None
    usd_per_million_input_tokens: float | None = None
    usd_per_million_output_tokens: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A fleet for a workload. Field names are the contract of plan.json; savings and shares are fractions."""

    status: Status
    slo: Slo
    workload: Mapping[str, Any]
    configs: Mapping[str, PlanConfig]
    buckets: tuple[PlanBucket, ...]
    instances: Mapping[str, int] = field(default_factory=dict)
    replicas: Mapping[str, int] = field(default_factory=dict)
    cost_usd_per_hour: float | None = None
    bound_usd_per_hour: float | None = None
    gap: float | None = None
    utilization: Mapping[str, float] = field(default_factory=dict)
    baselines: Mapping[str, Baseline] = field(default_factory=dict)
    best_single_type: str | None = None
    limits: tuple[PlanLimit, ...] = ()
    costs: Costs | None = None
    headroom: float = 0.0
    slice_factor: int | None = None
    continuous_cost_usd_per_hour: float | None = None
    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    dropped_offers: tuple[Mapping[str, Any], ...] = ()
    explanation: Mapping[str, Any] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        if self.status not in get_args(Status):
            raise InputError(f"plan: status is {self.status!r}", fix=f"one of {', '.join(get_args(Status))}")
        unknown = [name for name in self.replicas if name not in self.configs]
        if unknown:
            raise InputError(f"plan: replicas of {unknown[0]!r}, which is not among its configs")

    @property
    def solved(self) -> bool:
        return self.cost_usd_per_hour is not None

    @property
    def savings(self) -> float | None:
        """Share saved against the best single-type fleet; None without one."""
        return None if self.best_single_type is None else self.baselines[self.best_single_type].savings

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; the inverse of :meth:`from_dict`."""
        row: dict[str, Any] = {"schema_version": self.schema_version}
        for item in fields(self):
            row[item.name] = _plain(getattr(self, item.name))
        row["slo"] = self.slo.to_dict()
        return row

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Plan:
        """Read what :meth:`to_dict` wrote; a newer schema or a missing field raises InputError."""
        _version(data)
        try:
            rows = dict(data)
            rows["slo"] = Slo.from_dict(data["slo"])
            rows["configs"] = {k: PlanConfig(**_tupled(v, "sources")) for k, v in data["configs"].items()}
            rows["buckets"] = tuple(PlanBucket(**row) for row in data["buckets"])
            rows["baselines"] = {k: Baseline(**v) for k, v in data.get("baselines", {}).items()}
            rows["limits"] = tuple(PlanLimit(**row) for row in data.get("limits", ()))
            rows["costs"] = None if data.get("costs") is None else Costs(**data["costs"])
            for name in ("reasons", "warnings", "dropped_offers"):
                rows[name] = tuple(data.get(name, ()))
            return cls(**rows)
        except (TypeError, KeyError, AttributeError) as error:
            raise InputError(
                f"not a plan: {_reason(error)}", fix="make one with 'melange solve --plan plan.json'"
            ) from error


def _version(data: Mapping[str, Any]) -> int:
    """The schema version of plan.json's content; one that is missing or newer raises InputError."""
    version = data.get("schema_version")
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise InputError(
            f"plan schema version is {version}, this Mélange reads up to {SCHEMA_VERSION}",
            fix="upgrade Mélange or solve again",
        )
    return version


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if hasattr(value, "__dataclass_fields__") and not isinstance(value, type):
        return {item.name: _plain(getattr(value, item.name)) for item in fields(value)}
    return value


def _tupled(row: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {key: tuple(value) if key in names else value for key, value in row.items()}


def _reason(error: Exception) -> str:
    return f"the field {error} is missing" if isinstance(error, KeyError) else str(error).replace("__init__() ", "")


def read_plan(path: str | os.PathLike[str]) -> Plan:
    """Read plan.json; anything that is not one raises InputError with the file's name."""
    data = parse_json(read_text(path), path)
    if not isinstance(data, dict):
        raise InputError("not a plan: it holds no JSON object", file=path)
    try:
        _version(data)
        check_schema(Document(file=os.fspath(path), data=data, marks={}), "plan", see="see 'melange schema plan'")
        return Plan.from_dict(data)
    except InputError as error:
        raise error.located(path) from error


def write_plan(path: str | os.PathLike[str], plan: Plan) -> None:
    """Write plan.json, replacing an old one in one step."""
    write_atomic(path, json.dumps(plan.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def describe_instances(instances: Mapping[str, int]) -> str:
    """``1 x L4 + 2 x A10G``, zero counts left out."""
    return " + ".join(f"{count} x {name}" for name, count in instances.items() if count) or "nothing"
