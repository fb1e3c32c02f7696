"""plan.json: the file that every later command reads, and the only place where a plan becomes dictionaries."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

from melange.errors import InputError
from melange.files.documents import Document, check_schema
from melange.files.records import from_plain, to_plain
from melange.files.text import parse_json, read_text, write_atomic
from melange.plan.checker import Fault, faults_of, number_faults
from melange.plan.plan import SCHEMA_VERSION, Plan

_OTHER_IN_VERSION_1 = ("extra", "explanation", "attain", "uncertainty", "nanobatching")  # accounts, with other fields
_CATALOG_ONLY = ("aliases", "source", "unread")  # of a GPU or model; a plan keeps its figures


def plan_record(plan: Plan) -> dict[str, Any]:
    """The content of plan.json: the plan's fields, JSON-ready. A number that is not finite raises InputError."""
    record = to_plain(plan)
    record["slo"] = plan.slo.to_dict()
    shapes = [config[name] for config in record["configs"].values() for name in ("hardware", "model_shape")]
    shapes += [curve["model_shape"] for curve in record["basis"]["curves"]]
    for shape in shapes:
        for name in _CATALOG_ONLY if shape is not None else ():
            shape.pop(name, None)
    return {"schema_version": record.pop("schema_version"), **record}


def plan_of_record(record: Mapping[str, Any]) -> Plan:
    """The plan that :func:`plan_record` wrote; a missing, unknown or wrong field raises InputError."""
    slo = record.get("slo")
    if isinstance(slo, Mapping):  # ``statistic`` follows from the others
        record = {**record, "slo": {name: value for name, value in slo.items() if name != "statistic"}}
    return from_plain(Plan, record, "not a plan", fix="make one with 'melange solve --plan plan.json'")


def _version(record: Mapping[str, Any]) -> int:
    version = record.get("schema_version")
    if isinstance(version, bool) or not isinstance(version, int) or not 1 <= version <= SCHEMA_VERSION:
        raise InputError(
            f"plan schema version is {version}, this Mélange reads 1 to {SCHEMA_VERSION}",
            fix="upgrade Mélange or solve again",
        )
    return version


def _of_version_1(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record in today's form: fields that version 1 did not have are absent, its bag of extra facts is gone."""
    bag = record.get("extra")
    routing = bag.get("routing") if isinstance(bag, Mapping) else None
    row = {name: value for name, value in record.items() if name not in _OTHER_IN_VERSION_1}
    return {"routing": routing, **row, "schema_version": SCHEMA_VERSION}


def read_plan(path: str | os.PathLike[str]) -> Plan:
    """Read plan.json and verify it; anything that is no plan, or none that can be, raises InputError.

    The message names the file and the field. Of an older version's plan, what it could not know is None, and so are its
    explanation and other accounts, which had other fields.
    """
    data = parse_json(read_text(path), path)
    if not isinstance(data, dict):
        raise InputError("not a plan: it holds no JSON object", file=path)
    try:
        _refuse(number_faults(data), path)
        if _version(data) < SCHEMA_VERSION:
            data = _of_version_1(data)  # whose nested fields were fewer, too: reading them fills in the rest
        else:
            check_schema(Document(file=os.fspath(path), data=data, marks={}), "plan", see="see 'melange schema plan'")
        plan = plan_of_record(data)
    except InputError as error:
        raise error.located(path) from error
    _refuse(faults_of(plan), path)
    return plan


def _refuse(faults: Iterable[Fault], path: str | os.PathLike[str]) -> None:
    for fault in faults:
        raise InputError(f"not a plan that can be: {fault}", file=path, fix="solve again instead of editing it")


def write_plan(path: str | os.PathLike[str], plan: Plan) -> None:
    """Write plan.json, replacing an old one in one step."""
    write_atomic(path, json.dumps(plan_record(plan), indent=2, ensure_ascii=False, allow_nan=False) + "\n")
