"""workload.yaml: what is to be served, and from which profiles, prices and fleet; read and written here."""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from melange.catalog.model_config import config_file, model_from_config
from melange.catalog.offers import DEFAULT_PRICE_SET, PriceChoice
from melange.errors import InputError
from melange.files.documents import Document, read_document
from melange.files.shipped import data_path
from melange.files.text import write_atomic
from melange.planning.limits import Limits, TypeLimit
from melange.planning.spec import LATE_BY_DESIGN, ProfileChoice, ServingChoice, WorkloadSpec
from melange.planning.workload_slo import read_slo, slo_row
from melange.planning.workload_windows import read_windows, window_rule
from melange.slo import Slo
from melange.workload.bucket import Bucket
from melange.workload.sizes import SizeGrid
from melange.workload.windows import Window
from melange.workload.workload import Workload

_SERVING = ("tp", "precisions", "engines", "kv_dtypes", "batched_tokens", "sequences")
_MEANS = ("mean_input_tokens", "mean_output_tokens", "mean_product_tokens2", "mean_cached_tokens")


def load_workload(file: str | os.PathLike[str]) -> WorkloadSpec:
    """Read a workload file; a path that does not exist but names a shipped one (``arena-120ms``) finds it.

    Raises InputError with file, line and column for anything wrong in it.
    """
    document = read_document(_find(file), "workload")
    data = document.data
    try:
        slo = read_slo(document)
        if "trace" in data and "buckets" in data.get("sizes", {}):
            raise document.error(("trace",), "both trace and sizes.buckets are given", "keep one of them")
        if "trace" in data and "windows" in data:
            raise document.error(("windows",), "windows beside a trace", "a trace makes its own: leave them out")
        workload = _workload_from_trace(document, slo) if "trace" in data else _workload_from_sizes(document, slo)
        return WorkloadSpec(
            workload=workload,
            profiles=_profiles(document),
            prices=_prices(document),
            limits=_limits(document),
            serving=_serving(document),
            headroom=data.get("headroom", 0.0),
            window_share=_window_share(data.get("for_every_window", False)),
            late_by_design=data.get("late_by_design", LATE_BY_DESIGN),
            model_file=_model(document)[1],
            file=document.file,
            places=_places(document),
        )
    except InputError as error:
        raise error.located(document.file) from error


def _places(document: Document) -> dict[str, tuple[int, int]]:
    """Where the keys stand that WorkloadSpec.places speaks of."""
    keys = ("model", "prices", "profiles", "serving", "for_every_window")
    paths: list[tuple[str, ...]] = [*((key,) for key in keys), ("profiles", "set")]
    paths += [("sizes", f"{axis}_edges_tokens") for axis in ("input", "output")]
    paths += [("fleet", name, "#key") for name in document.data.get("fleet", {})]
    return {
        ".".join(part for part in path if part != "#key"): document.marks[path]
        for path in paths
        if path in document.marks
    }


def _window_share(written: bool | float) -> float | None:
    """``for_every_window: true`` is a share of 1, ``false`` none."""
    return (1.0 if written else None) if isinstance(written, bool) else float(written)


def _find(file: str | os.PathLike[str]) -> Path:
    path = Path(file)
    if path.exists():
        return path
    for name in (path.name, f"{path.name}.yaml"):
        shipped = data_path(f"workloads/{name}")
        if shipped.is_file() and path.parent.name in ("", "workloads"):
            return shipped
    if path.parent.name == "" and os.fspath(file) != "-":
        names = sorted(shipped.stem for shipped in data_path("workloads").glob("*.yaml"))
        near = difflib.get_close_matches(path.stem, names, n=1)
        fix = f"did you mean {near[0]}?" if near else f"shipped workloads: {', '.join(names)}"
        raise InputError("cannot read it: no such file, and no shipped workload of this name", file=file, fix=fix)
    return path


def _grid(document: Document) -> SizeGrid:
    sizes = document.data.get("sizes", {})
    if "input_edges_tokens" not in sizes:
        return SizeGrid.paper()
    for name in ("input_edges_tokens", "output_edges_tokens"):
        edges = sizes[name]
        for i, (low, high) in enumerate(pairwise(edges)):
            if high <= low:
                raise document.error(
                    ("sizes", name, i + 1), f"{name} is not ascending: {high} follows {low}", "sort the edges"
                )
    return SizeGrid(
        input_edges_tokens=tuple(sizes["input_edges_tokens"]), output_edges_tokens=tuple(sizes["output_edges_tokens"])
    )


def _workload_from_sizes(document: Document, slo: Slo) -> Workload:
    data = document.data
    if "sizes" not in data or "buckets" not in data["sizes"]:
        raise document.error(
            (), "neither sizes.buckets nor trace is given", "add one of them; see 'melange schema workload'"
        )
    if "rate_rps" not in data:
        raise document.error((), "rate_rps is missing", "give requests per second")
    grid = _grid(document)
    shape = grid.shape
    rate = np.zeros(shape)
    means = {name: np.full(shape, np.nan) for name in _MEANS}
    cells = [_cell(document, grid, n, row) for n, row in enumerate(data["sizes"]["buckets"])]
    for n, (cell, row) in enumerate(zip(cells, data["sizes"]["buckets"], strict=True)):
        if rate[cell] > 0:
            raise document.error(("sizes", "buckets", n), "this bucket occurs twice", "merge the two")
        rate[cell] = row["share"]
        for name in _MEANS:
            means[name][cell] = row.get(name, _default_mean(name, row))
    total = sum(rate.ravel().tolist())
    if not math.isfinite(total):
        raise document.error(("sizes", "buckets"), f"the shares sum to {total}", "give shares that sum to 1")
    if not total:
        raise document.error(("sizes", "buckets"), "the histogram is empty: every share is 0", "give it some requests")
    windows = read_windows(document, cells, shape)
    model, _ = _model(document)
    try:
        return Workload(
            name=data["name"],
            grid=grid,
            rate_rps=rate / total * data["rate_rps"],
            **means,
            slo=slo,
            model=model,
            representative=data["sizes"].get("representative", "mean"),
            burstiness_cv=data["sizes"].get("burstiness_cv"),
            sample_requests=data["sizes"].get("sample_requests"),
            windows=windows,
            provenance=data["sizes"].get("provenance", {}),
        )
    except InputError as error:
        raise document.error(("sizes", "buckets"), error.problem, error.fix) from error


def _default_mean(name: str, row: Mapping[str, float]) -> float:
    """Means that a hand-written bucket may leave out: the upper edge, their product, nothing cached."""
    inputs = row.get("mean_input_tokens", row["input_tokens_max"])
    outputs = row.get("mean_output_tokens", row["output_tokens_max"])
    defaults = {
        "mean_input_tokens": inputs,
        "mean_output_tokens": outputs,
        "mean_product_tokens2": inputs * outputs,
        "mean_cached_tokens": 0.0,
    }
    return float(defaults[name])


def _cell(document: Document, grid: SizeGrid, n: int, row: Mapping[str, Any]) -> tuple[int, int]:
    indices = []
    for name, edges in (("input_tokens_max", grid.input_edges_tokens), ("output_tokens_max", grid.output_edges_tokens)):
        if row[name] not in edges:
            raise document.error(
                ("sizes", "buckets", n, name), f"{name} {row[name]} is not an edge of the grid", f"edges: {list(edges)}"
            )
        indices.append(edges.index(row[name]))
    return indices[0], indices[1]


def _workload_from_trace(document: Document, slo: Slo) -> Workload:
    from melange.workload.histogram import workload_from_trace

    row = document.data["trace"]
    path = Path(row["path"])
    path = path if path.is_absolute() else Path(document.file).parent / path
    window = row.get("window_s")
    workload, _ = workload_from_trace(
        path,
        format=row.get("format", "auto"),
        columns=row.get("columns"),
        **{name: row[name] for name in ("time_unit", "block_tokens") if name in row},
        grid=_grid(document),
        rate_rps=document.data.get("rate_rps"),
        window_s=None if window is None else (float(window[0]), float(window[1])),
        slo=slo,
        name=document.data["name"],
        model=_model(document)[0],
        representative=document.data.get("sizes", {}).get("representative", "mean"),
        windows=window_rule(document),
    )
    return workload


def _profiles(document: Document) -> ProfileChoice:
    row = dict(document.data.get("profiles", {}))
    base = Path(document.file).parent
    row["files"] = tuple(str(p if Path(p).is_absolute() else base / p) for p in row.get("files", ()))
    if row.get("calibration"):
        row["calibration"] = str(base / row["calibration"])
    if not row.get("set") and not row["files"]:
        model = _model(document)[0]
        if not model:
            raise document.error((), "neither profiles nor model is given", "name a profile set, files, or a model")
        row["set"] = f"estimated/{model}"
    return ProfileChoice(**row)


def _model(document: Document) -> tuple[str | None, str | None]:
    """The model's name, and the config.json that describes it where the file names one."""
    written = document.data.get("model")
    path = None if written is None else config_file(written, Path(document.file).parent)
    if path is None:
        return written, None
    try:
        return model_from_config(path).name, os.fspath(path)
    except InputError as error:
        raise document.error(("model",), f"model {written}: {error.problem}", error.fix) from error


def _serving(document: Document) -> ServingChoice:
    row = document.data.get("serving", {})
    try:
        return ServingChoice(**{key: tuple(value) for key, value in row.items()})
    except InputError as error:
        raise document.error(("serving",), error.problem, error.fix) from error


def _prices(document: Document) -> PriceChoice:
    row = document.data.get("prices", DEFAULT_PRICE_SET)
    if isinstance(row, str):
        return PriceChoice(price_set=row)
    file = row.get("file")
    return PriceChoice(
        price_set=row.get("set", DEFAULT_PRICE_SET),
        file=None if file is None else str(Path(document.file).parent / file),
        providers=tuple(row.get("providers", ())),
        regions=tuple(row.get("regions", ())),
        spot=row.get("spot", False),
    )


def _limits(document: Document) -> Limits:
    """What the file's fleet says; an entry of nothing but what is owned leaves open what may be rented."""
    if "fleet" not in document.data:
        return Limits()
    types, listed = dict[str, TypeLimit](), list[str]()
    for name, row in document.data["fleet"].items():
        low, high = (row or {}).get("min", 0), (row or {}).get("max")
        own, size = (row or {}).get("owned", 0), (row or {}).get("gpus_per_machine")
        if high is not None and high < low:
            raise document.error(("fleet", name), f"fleet.{name}: min {low} exceeds max {high}", "raise the maximum")
        if size is not None and own % size:
            raise document.error(
                ("fleet", name), f"fleet.{name}: {own} owned in machines of {size} GPUs", "give a multiple of the size"
            )
        types[name] = TypeLimit(minimum=low, maximum=high, owned=own, gpus_per_machine=size)
        if not own or (row or {}).keys() - {"owned", "gpus_per_machine"}:
            listed.append(name)
    return Limits(fleet=tuple(listed) if listed or not types else None, types=types)


def dump_workload(spec: WorkloadSpec, comment: str | None = None) -> str:
    """The YAML text of a spec; :func:`load_workload` reads it back to equal values (numbers keep 10 digits)."""
    w = spec.workload
    data: dict[str, Any] = {"version": 1, "name": w.name}
    if w.model:
        data["model"] = spec.model_file or w.model
    data |= {"slo": _Row(slo_row(w.slo)), "rate_rps": _short(w.total_rate_rps)}
    sizes: dict[str, Any] = {
        "input_edges_tokens": list(w.grid.input_edges_tokens),
        "output_edges_tokens": list(w.grid.output_edges_tokens),
        "representative": w.representative,
    }
    if w.burstiness_cv is not None:
        sizes["burstiness_cv"] = _short(w.burstiness_cv)
    if w.sample_requests is not None:
        sizes["sample_requests"] = w.sample_requests
    if w.provenance:
        sizes["provenance"] = dict(w.provenance)
    sizes["buckets"] = [_bucket_row(bucket, w.total_rate_rps) for bucket in w.buckets()]
    data["sizes"] = sizes
    if w.windows:
        data["windows"] = [_window_row(w, window) for window in w.windows]
    data |= {"profiles": _profiles_row(spec.profiles), "prices": _prices_row(spec.prices)}
    owned = [name for name, limit in spec.limits.types.items() if limit.owned]
    if owned or spec.limits.fleet is not None:
        names = dict.fromkeys((*(spec.limits.fleet or ()), *owned))
        data["fleet"] = {name: _limit_row(spec.limits.types.get(name, TypeLimit())) for name in names}
        for name in spec.limits.fleet or ():
            if name in owned:  # Rented too, which an entry of nothing but what is owned does not say.
                data["fleet"][name].setdefault("min", 0)
    serving = {n: list(v) for n in _SERVING if (v := getattr(spec.serving, n))}
    if serving:
        data["serving"] = serving
    if spec.window_share is not None:
        data["for_every_window"] = True if spec.window_share == 1 else spec.window_share
    if spec.late_by_design != LATE_BY_DESIGN:
        data["late_by_design"] = spec.late_by_design
    data["headroom"] = spec.headroom
    text = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    head = "".join(f"# {line}\n" for line in (comment or "").splitlines())
    return head + text


def write_workload(path: str | os.PathLike[str], spec: WorkloadSpec, comment: str | None = None) -> None:
    """Write a workload file, replacing an old one in one step."""
    write_atomic(path, dump_workload(spec, comment))


class _Dumper(yaml.SafeDumper):
    """Block style for the document, flow style for the rows of a table."""


class _Row(dict[str, Any]):
    """A mapping written on one line."""


_Dumper.add_representer(_Row, lambda d, v: d.represent_mapping("tag:yaml.org,2002:map", v, flow_style=True))
_Dumper.add_representer(
    list,
    lambda d, v: d.represent_sequence(
        "tag:yaml.org,2002:seq", v, flow_style=all(not isinstance(x, dict | list) for x in v)
    ),
)


def _bucket_row(bucket: Bucket, total_rps: float) -> _Row:
    row = _Row(
        input_tokens_max=bucket.input_tokens_max,
        output_tokens_max=bucket.output_tokens_max,
        share=_short(bucket.rate_rps / total_rps),
    )
    row.update({name: _short(getattr(bucket, name)) for name in _MEANS})
    return row


def _window_row(w: Workload, window: Window) -> _Row:
    """A window on one line: its requests stand in the order of the buckets."""
    counts = [_short(count) for count in window.requests[w.rate_rps > 0]]
    return _Row(start_s=_short(window.start_s), length_s=_short(window.length_s), requests=counts)


def _short(value: float) -> float | int:
    rounded = float(f"{float(value):.10g}")
    return int(rounded) if rounded == int(rounded) else rounded


def _profiles_row(choice: ProfileChoice) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name in ("set", "assume_slo", "reason", "fill", "calibration"):
        if getattr(choice, name):
            row[name] = getattr(choice, name)
    if choice.files:
        row["files"] = list(choice.files)
    return row


def _limit_row(limit: TypeLimit) -> dict[str, int]:
    row = {
        "min": limit.minimum or None, "max": limit.maximum,
        "owned": limit.owned or None, "gpus_per_machine": limit.gpus_per_machine,
    }  # fmt: skip
    return {name: n for name, n in row.items() if n is not None}


def _prices_row(choice: PriceChoice) -> str | dict[str, Any]:
    lists: Mapping[str, Sequence[str]] = {"providers": choice.providers, "regions": choice.regions}
    row: dict[str, Any] = {name: list(value) for name, value in lists.items() if value}
    row |= {"spot": True} if choice.spot else {}
    row |= {"file": choice.file} if choice.file else {}
    return {"set": choice.price_set, **row} if row else choice.price_set
