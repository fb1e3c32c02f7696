"""The append-only JSONL file that keeps load points, and what their headers say.

A header's ``schema_version`` is that of the records that follow it; records before any header are read as version 1.
Version 1 kept everything that it knew of a run beside each other in the header, and what verdicts and the search
compute with under a point's ``extra``. Version 2, which is written, has a field for each of them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from melange.errors import InputError
from melange.files.lines import LineFile, Warn
from melange.files.records import from_plain, to_plain
from melange.files.shown import short_repr
from melange.files.text import parse_json
from melange.measurements.measurement import Measurement
from melange.serving.config import ConfigKey
from melange.slo import Slo

if TYPE_CHECKING:
    from pandas import DataFrame

SCHEMA_VERSION = 2
SEE = "see 'melange schema measurements'"
APPEND_WAIT_S = 10.0  # for another command that is adding to the same file

_EXTRA_1 = {"confidence": "confidence", "nominal_rps": "nominal_rps", "run_for": "asked"}
_EXTRA_1 |= {f"queue_growth_{end}_rps": f"queue_growth_{end}_rps" for end in ("low", "high")}
_HEADER_1 = {name: name for name in (*ConfigKey._fields, "engine_version", "kv_cache", "model_shape", "slo")}
_HEADER_1 |= {"max_model_len": "max_model_len_tokens"}


@dataclass(frozen=True, slots=True, kw_only=True)
class KvCache:
    """What an engine says that its KV cache holds, in tokens, and the tokens of one block."""

    tokens: int
    block_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """Provenance of the points that follow it in a file; None for what is not known.

    The parts of the key say which configuration the rest is of. ``engine_command`` is what the engine was started
    with, ``max_model_len_tokens`` and ``kv_cache`` the limits that it told; ``model_shape`` holds the model's figures
    where it was served from a folder, ``slo`` what was measured for. ``facts`` are for readers, JSON-ready.
    """

    model: str | None = None
    gpu: str | None = None
    tp: int | None = None
    precision: str | None = None
    engine: str | None = None
    kv_dtype: str | None = None
    max_batched_tokens: int | None = None
    max_num_seqs: int | None = None
    engine_version: str | None = None
    engine_command: tuple[str, ...] | None = None
    max_model_len_tokens: int | None = None
    kv_cache: KvCache | None = None
    model_shape: Mapping[str, Any] | None = None
    slo: Slo | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "facts", MappingProxyType(dict(self.facts)))

    def is_of(self, key: ConfigKey) -> bool:
        """Whether it names exactly this configuration."""
        kept = replace(self, kv_dtype=self.kv_dtype or "auto")
        return ConfigKey.of(kept) == key

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, absent fields left out; the inverse of :meth:`from_dict`."""
        row = {**to_plain(self, keep_none=False), "facts": to_plain(self.facts)}
        return row if self.facts else {name: value for name, value in row.items() if name != "facts"}

    @classmethod
    def from_dict(cls, row: Mapping[str, object]) -> Header:
        """Read what :meth:`to_dict` wrote; unknown fields and wrong types raise InputError."""
        return from_plain(cls, row, "header", fix=SEE)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasurementFile:
    """What a measurements file holds: its headers and its points, in file order."""

    path: str
    headers: tuple[Header, ...]
    points: tuple[Measurement, ...]
    torn_tail: bool = False

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader of the points must know of the file itself."""
        if not self.torn_tail:
            return ()
        return (f"{self.path}: its last line was cut short (a run that was killed?) and is left out",)

    def __repr__(self) -> str:
        of = ", ".join(dict.fromkeys(point.key.describe() for point in self.points))
        return short_repr("MeasurementFile", f"{Path(self.path).name}: {len(self.points)} load points; {of}")

    def to_frame(self) -> DataFrame:
        """One row a load point, in file order (index 0, 1, ...).

        Columns are the fields of :class:`Measurement` that some point has, latencies one column a statistic
        (``ttft_mean_s``, ``tpot_decode_p99_s``, ...); per-request samples and ``extra`` are left out. NaN or None where
        a point does not know.
        """
        import pandas as pd

        return pd.DataFrame([_flat(point) for point in self.points])


def _flat(point: Measurement) -> dict[str, object]:
    row: dict[str, object] = {}
    for name, value in point.to_dict().items():
        if name == "extra" or name.startswith("sample_"):
            continue
        if isinstance(value, Mapping):
            row |= {f"{name.removesuffix('_s')}_{statistic}_s": seconds for statistic, seconds in value.items()}
        else:
            row[name] = value
    return row


def read_measurements(path: str | os.PathLike[str]) -> MeasurementFile:
    """Read a measurements file.

    A last line that a kill cut short (no newline, not JSON) is left out and reported as ``torn_tail``; any other
    damage raises InputError with its line.
    """
    records = _Records()
    torn = False
    for number, line, ended in _lines(path):
        try:
            record = parse_json(line, path, number)
        except InputError:
            if not ended:
                torn = True
                break
            raise
        try:
            records.take(record)
        except InputError as error:
            raise error.located(path, number) from error
    headers, points = tuple(records.headers), tuple(records.points)
    if not headers and not points:
        raise InputError("no measurements in it", file=path, fix=SEE)
    return MeasurementFile(path=os.fspath(path), headers=headers, points=points, torn_tail=torn)


def _lines(path: str | os.PathLike[str]) -> Iterator[tuple[int, bytes, bool]]:
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read it: {error.strerror}", file=path, fix="check the path") from error
    for number, line in enumerate(data.splitlines(keepends=True), start=1):
        if line.strip():
            yield number, line.strip(), line.endswith(b"\n")


class _Records:
    """What a file has said so far, and in which version it goes on."""

    def __init__(self) -> None:
        self.headers: list[Header] = []
        self.points: list[Measurement] = []
        self.version = 1

    def take(self, record: object) -> None:
        if not isinstance(record, dict):
            raise InputError(f"a record is a {type(record).__name__}", fix="every line is a JSON object")
        kind = record.pop("record", None)
        if kind == "header":
            self.version = _known_version(record.pop("schema_version", None))
            self.headers.append(Header.from_dict(_header_of_version_1(record) if self.version == 1 else record))
        elif kind == "point":
            self.points.append(Measurement.from_dict(_point_of_version_1(record) if self.version == 1 else record))
        else:
            raise InputError(f"record is {kind!r}", fix="use header or point")


def _known_version(version: object) -> int:
    if isinstance(version, bool) or not isinstance(version, int) or not 1 <= version <= SCHEMA_VERSION:
        raise InputError(
            f"measurements schema version is {version}", fix=f"this Mélange reads versions 1 to {SCHEMA_VERSION}"
        )
    return version


def _header_of_version_1(record: Mapping[str, Any]) -> dict[str, Any]:
    facts = dict(record)
    row = {new: facts.pop(old) for old, new in _HEADER_1.items() if old in facts}
    server = facts.get("server")
    if isinstance(server, Mapping) and "command" in server:
        row["engine_command"] = server["command"]
        facts["server"] = {name: value for name, value in server.items() if name != "command"}
    return {**row, "slo": _slo_of_version_1(row.get("slo")), "facts": facts}


def _point_of_version_1(record: Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(record.get("extra"), Mapping):
        return record
    extra = dict(record["extra"])
    row = {new: extra.pop(old) for old, new in _EXTRA_1.items() if old in extra}
    if isinstance(row.get("asked"), Mapping):
        row["asked"] = {**row["asked"], "slo": _slo_of_version_1(row["asked"].get("slo"))}
    return {**record, **row, "extra": extra}


def _slo_of_version_1(slo: object) -> object:
    """Without its statistic, which follows from the attainment."""
    return {k: v for k, v in slo.items() if k != "statistic"} if isinstance(slo, Mapping) else slo


def record_line(record: Header | Measurement) -> str:
    """One line of the file, newline included; InputError for NaN and infinity, which JSON cannot hold."""
    kind = {"record": "header", "schema_version": SCHEMA_VERSION} if isinstance(record, Header) else {"record": "point"}
    return json.dumps({**kind, **record.to_dict()}, allow_nan=False, ensure_ascii=False) + "\n"


def append_measurements(
    path: str | os.PathLike[str], header: Header | None, points: Iterable[Measurement], *, warn: Warn | None = None
) -> None:
    """Append a header, if given, and points, flushed to the disk: all of them, or none.

    See :func:`append_records`.
    """
    append_records(path, [*([header] if header is not None else []), *points], warn=warn)


def append_records(
    path: str | os.PathLike[str], records: Iterable[Header | Measurement], *, warn: Warn | None = None
) -> None:
    """Append headers and points in their order, flushed to the disk: all of them, or none.

    The file's end is looked at first, see :class:`melange.files.lines.LineFile`: half a record that a kill or a full
    disk left there is set aside, and ``warn`` is told where. InputError where the file cannot be written, or another
    process goes on writing it.
    """
    lines = "".join(map(record_line, records))
    with LineFile(path, warn=warn, wait_s=APPEND_WAIT_S) as file:
        file.append(lines)
