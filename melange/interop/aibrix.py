"""AIBrix's GPU-optimizer profiles, read into measurements and written from a plan's problem.

A profile (github.com/vllm-project/aibrix, python/aibrix/aibrix/gpu_optimizer) is a JSON object ``gpu`` (the name of a
deployment), ``cost`` (per hour), ``tputs`` (requests/s), ``indexes`` ([output tokens, input tokens]), ``created`` (Unix
time) and, in newer versions, ``e2e``, ``ttft`` and ``tpot`` (mean seconds at that rate) and ``slos``. All its matrices
are [output][input]; ours are [input][output]. A file holds one object, a list, or one object a line.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import numpy as np

from melange.arrays import FloatArray
from melange.catalog.hardware import load_catalog
from melange.errors import InputError
from melange.files.documents import Document, check_schema, read_documents
from melange.measurements.file import Header
from melange.measurements.measurement import Measurement
from melange.plan.plan import Plan
from melange.planning.choices import Choices

_LATENCIES = ("e2e", "ttft", "tpot")
_NUMBERS = {"type": "array", "minItems": 1, "items": {"type": "number", "exclusiveMinimum": 0}}
_MATRIX = {
    "type": "array",
    "minItems": 1,
    "items": {"type": "array", "minItems": 1, "items": {"type": "number", "minimum": 0}},
}
_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["gpu", "cost", "tputs", "indexes"],
    "properties": {
        "gpu": {"type": "string", "minLength": 1},
        "cost": {"type": "number", "minimum": 0},
        "tputs": _MATRIX,
        "indexes": {"type": "array", "minItems": 2, "maxItems": 2, "items": _NUMBERS},
        "created": {"type": "number", "minimum": 0},
        "slos": {"type": "object"},
        **dict.fromkeys(_LATENCIES, _MATRIX),
    },
}
_SEE = "see AIBrix's gpu_optimizer/optimizer/profiling/gen_profile.py"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AibrixProfile:
    """One deployment's profile, in our axes.

    ``input_tokens``: (n,) and ``output_tokens``: (m,) ascending. ``max_rate_rps``: (n, m), 0 = no tested rate met
    AIBrix's SLO. ``mean_latency_s``: ``e2e``, ``ttft``, ``tpot`` -> (n, m) where the file has them. ``slos`` is the
    file's, in seconds, with ``percentile`` 0 for the mean. ``other`` keeps keys that this version does not know.
    """

    deployment: str
    cost_usd_per_hour: float
    input_tokens: FloatArray
    output_tokens: FloatArray
    max_rate_rps: FloatArray
    mean_latency_s: Mapping[str, FloatArray] = field(default_factory=dict)
    slos: Mapping[str, object] = field(default_factory=dict)
    created_unix_s: float | None = None
    other: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = (len(self.input_tokens), len(self.output_tokens))
        for name, array in (("max_rate_rps", self.max_rate_rps), *self.mean_latency_s.items()):
            if array.shape != shape:
                raise InputError(f"AIBrix profile {self.deployment}: {name} has shape {array.shape}, not {shape}")
        for name in ("mean_latency_s", "slos", "other"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    def to_dict(self) -> dict[str, object]:
        """The JSON object, matrices turned to [output][input]; only the five keys that every AIBrix version reads."""
        return {
            "gpu": self.deployment,
            "cost": self.cost_usd_per_hour,
            "tputs": self.max_rate_rps.T.tolist(),
            "indexes": [_whole(self.output_tokens), _whole(self.input_tokens)],
            "created": 0.0 if self.created_unix_s is None else self.created_unix_s,
        }


def _whole(sizes: FloatArray) -> list[float]:
    return [int(size) if size == int(size) else float(size) for size in sizes]


def read_aibrix(path: str | os.PathLike[str]) -> tuple[AibrixProfile, ...]:
    """Every profile of a file; anything wrong in it raises InputError with file, line and column."""
    profiles = tuple(_profile(document) for document in read_documents(path))
    if not profiles:
        raise InputError("it holds no profile", file=path, line=1, column=1, fix=_SEE)
    return profiles


def _profile(document: Document) -> AibrixProfile:
    check_schema(document, _SCHEMA, see=_SEE)
    data = document.data
    outputs, inputs = (_sizes(document, axis) for axis in (0, 1))
    shape = (len(outputs), len(inputs))
    known = set(_SCHEMA["properties"])
    return AibrixProfile(
        deployment=data["gpu"],
        cost_usd_per_hour=float(data["cost"]),
        input_tokens=inputs,
        output_tokens=outputs,
        max_rate_rps=_turned(document, "tputs", shape),
        mean_latency_s={name: _turned(document, name, shape) for name in _LATENCIES if name in data},
        slos=data.get("slos", {}),
        created_unix_s=data.get("created"),
        other={key: value for key, value in data.items() if key not in known},
    )


def _sizes(document: Document, axis: int) -> FloatArray:
    values = document.data["indexes"][axis]
    for i, (low, high) in enumerate(pairwise(values)):
        if high <= low:
            raise document.error(
                ("indexes", axis, i + 1), f"indexes.{axis} is not ascending: {high} follows {low}", "sort the sizes"
            )
    return np.array(values, dtype=float)


def _turned(document: Document, name: str, shape: tuple[int, int]) -> FloatArray:
    """The matrix of a key from [output][input] to (n_input, n_output)."""
    rows: list[list[float]] = document.data[name]
    if len(rows) != shape[0]:
        raise document.error(
            (name,), f"{name} has {len(rows)} rows for {shape[0]} output sizes", "rows are outputs, columns inputs"
        )
    for i, row in enumerate(rows):
        if len(row) != shape[1]:
            raise document.error(
                (name, i), f"row {i} of {name} has {len(row)} values for {shape[1]} input sizes", "rows are outputs"
            )
        for j, value in enumerate(row):
            if not abs(value) < 1e300:  # no number either; a whole number may be beyond all floats
                raise document.error((name, i, j), f"{name}.{i}.{j} is {value!r:.40}", "give a finite number")
    return np.array(rows, dtype=float).T


def measurements_of(
    profile: AibrixProfile, *, model: str, gpu: str, tp: int = 1, precision: str = "fp16", engine: str = "vllm"
) -> tuple[Header, tuple[Measurement, ...]]:
    """A profile as capacities, with a header that keeps its SLO, cost and age.

    AIBrix keeps the throughput at *its* SLO, no load curve: a workload uses these points with ``assume_slo: true``.
    Its mean latencies stay in each point's ``extra``. ``gpu`` is a catalog name; unknown ones raise InputError.
    """
    gpu = load_catalog().gpu(gpu).name
    created = profile.created_unix_s
    date = None if created is None else datetime.fromtimestamp(created, UTC).date().isoformat()
    points = tuple(
        Measurement(
            model=model,
            gpu=gpu,
            tp=tp,
            precision=precision,
            engine=engine,
            input_tokens=float(inputs),
            output_tokens=float(outputs),
            loop="capacity",
            achieved_rps=float(profile.max_rate_rps[i, j]),
            source="measured",
            date=date,
            extra={f"mean_{name}_s": float(values[i, j]) for name, values in profile.mean_latency_s.items()},
        )
        for i, inputs in enumerate(profile.input_tokens)
        for j, outputs in enumerate(profile.output_tokens)
    )
    facts = {
        "source": "measured",
        "what": "AIBrix GPU-optimizer profile: highest tested throughput that met its SLO; 0 where no tested rate did",
        "deployment": profile.deployment,
        "cost_usd_per_hour": profile.cost_usd_per_hour,
        "slos": dict(profile.slos),
        "date": date,
    }
    return Header(facts=facts | ({"other": dict(profile.other)} if profile.other else {})), points


def prices_csv(rows: Sequence[tuple[AibrixProfile, str, int]]) -> str:
    """A price file (``--prices``) from profiles with their GPU and the GPUs of one deployment's replica."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["instance", "gpu", "gpu_count", "on_demand_usd_per_hour", "source"])
    for profile, gpu, gpus in rows:
        if not profile.cost_usd_per_hour > 0:
            raise InputError(
                f"AIBrix profile {profile.deployment}: its cost is {profile.cost_usd_per_hour}",
                fix="a price is positive: set cost in its file, or leave the price file out",
            )
        name = load_catalog().gpu(gpu).name
        writer.writerow([profile.deployment, name, gpus, profile.cost_usd_per_hour, "AIBrix profile"])
    return text.getvalue()


def from_choices(choices: Choices, *, created_unix_s: float | None = None) -> tuple[AibrixProfile, ...]:
    """A profile for each serving config that a workload may use, at its SLO.

    All share one grid, the union of the profiled sizes, as AIBrix demands of deployments that it weighs against each
    other. Sizes that were not measured on a config become 0: AIBrix has no "unknown", and 0 keeps requests away.
    """
    tables = [(c, choices.profile.configs[c.key]) for c in choices.configs]
    entries = [
        (
            c.name,
            c.instance.price_usd_per_hour * c.tp / c.instance.gpus,
            table.input_tokens,
            table.output_tokens,
            table.max_rate_rps,
        )
        for c, table in tables
    ]
    return _on_one_grid(entries, created_unix_s)


def from_plan(plan: Plan, *, created_unix_s: float | None = None) -> tuple[AibrixProfile, ...]:
    """A profile for each config of a plan, as :func:`from_choices`; a plan without profile tables raises InputError."""
    entries = []
    for name, c in plan.configs.items():
        if c.profile is None:
            raise InputError(
                f"the plan holds no profile of {name}: it was made from a config without sizes",
                fix="solve a workload.yaml and export that plan",
            )
        shape = len(c.profile.input_tokens), len(c.profile.output_tokens)
        if len(c.profile.max_rate_rps) != shape[0] or any(len(row) != shape[1] for row in c.profile.max_rate_rps):
            raise InputError(f"max_rate_rps of {name} is no table of its sizes", fix="solve the workload again")
        table = np.array([[np.nan if v is None else v for v in row] for row in c.profile.max_rate_rps], dtype=float)
        price = c.price_usd_per_hour * c.tp / c.gpus_per_instance
        sizes = (np.array(tokens, dtype=float) for tokens in (c.profile.input_tokens, c.profile.output_tokens))
        entries.append((name, price, *sizes, table))
    return _on_one_grid(entries, created_unix_s)


def _on_one_grid(entries: Sequence[tuple[Any, ...]], created_unix_s: float | None) -> tuple[AibrixProfile, ...]:
    inputs = np.unique(np.concatenate([entry[2] for entry in entries]))
    outputs = np.unique(np.concatenate([entry[3] for entry in entries]))
    profiles = []
    for name, price, own_inputs, own_outputs, rates in entries:
        wide = np.zeros((len(inputs), len(outputs)))
        at = np.ix_(np.searchsorted(inputs, own_inputs), np.searchsorted(outputs, own_outputs))
        wide[at] = np.nan_to_num(rates, nan=0.0)
        profiles.append(
            AibrixProfile(
                deployment=name,
                cost_usd_per_hour=float(price),
                input_tokens=inputs,
                output_tokens=outputs,
                max_rate_rps=wide,
                created_unix_s=created_unix_s,
            )
        )
    return tuple(profiles)
