"""gpuhunt's catalog of rental offers (github.com/dstackai/gpuhunt): fetched with that package, or read from a copy.

The catalog is a CSV for each provider, PROVIDER.csv, published as a zip of its own under a version such as
``20260818-42``, whose first part is the day it was collected. Each row is a machine in a region at a price in USD per
hour, on demand or spot; rows without GPUs are most of it.
"""

from __future__ import annotations

import contextlib
import csv
import io
import logging
import lzma
import os
import re
import socket
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from melange.catalog.offers import MOST_GPUS
from melange.errors import InputError, MelangeError, MissingExtraError
from melange.files.places import MOST_BYTES, read_bytes
from melange.files.text import decode_text, read_text
from melange.interop.listings import Listing

PATIENCE_S = 30.0
COLUMNS = ("instance_name", "location", "price", "gpu_count", "gpu_name", "gpu_memory", "spot")
_OUR_NAMES = {"lambdalabs": "lambda"}
# Offers on other terms than a machine for as long as wanted, by the catalog's flags.
_SPECIAL = {
    "gcp-dws-calendar-mode": "reserved ahead",
    "runpod-cluster": "rented in clusters only",
    "gcp-g4-preview": "listed twice",
}
_VERSION = re.compile(r"([0-9]{4})([0-9]{2})([0-9]{2})(?:-.*)?")
_PROVIDER = re.compile(r"[A-Za-z][\w-]*")
_NO_ZIP = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, NotImplementedError, RuntimeError, EOFError, ValueError, OSError
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What was fetched, and what gpuhunt said of providers and rows that it could not load."""

    listings: tuple[Listing, ...]
    remarks: tuple[str, ...] = ()


def our_provider(name: str) -> str:
    """The name that price files call a provider of gpuhunt's by."""
    return _OUR_NAMES.get(name.lower(), name.lower())


def fetch_catalog(today: date) -> Fetched:
    """The newest published offers of every provider that gpuhunt collects; ``$GPUHUNT_CATALOG_URL`` is a mirror.

    Prices are of the day in their catalog's version, else of ``today``. MissingExtraError without gpuhunt; MelangeError
    where nothing can be fetched.
    """
    try:
        import gpuhunt
    except ImportError:
        raise MissingExtraError.of("gpuhunt", "prices", "fetching current prices") from None
    catalog = gpuhunt.Catalog(auto_reload=False)
    if not isinstance(getattr(catalog, "catalog", None), dict):
        raise InputError("this gpuhunt is too old", fix="pip install '.[prices]'")
    with _remarks() as remarks, _patience():
        try:
            catalog.load()
        except (gpuhunt.GPUHuntError, OSError, ValueError) as error:
            why = error.__cause__ or error
            raise MelangeError(
                f"cannot fetch the catalog of gpuhunt: {' '.join(str(why).split())}; check the network, or give a copy "
                "with --catalog"
            ) from error
    listings = [
        _of_item(item, provider, loaded.version, today)
        for provider, loaded in catalog.catalog.items()
        for item in loaded.items
        if item.gpu_count
    ]
    return Fetched(listings=tuple(listings), remarks=tuple(remarks))


def _of_item(item: Any, provider: str, version: str, today: date) -> Listing:
    read_on = _day(_VERSION.fullmatch(version)) or today
    return Listing(
        provider=our_provider(provider),
        instance=item.instance_name,
        region=_region(provider, item.location),
        gpu=item.gpu_name or "",
        gpu_memory_gib=item.gpu_memory,
        gpu_count=item.gpu_count,
        price_usd_per_hour=item.price,
        spot=item.spot,
        read_on=read_on.isoformat(),
        source=f"gpuhunt catalog {provider} {version}",
        special=_special(item.flags),
    )


def _day(found: re.Match[str] | None) -> date | None:
    try:
        return None if found is None else date(*map(int, found.groups()))
    except ValueError:
        return None


@contextlib.contextmanager
def _remarks() -> Iterator[list[str]]:
    """What gpuhunt logs within, which would go to standard error with tracebacks, as short texts."""
    said: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            why = f": {record.exc_info[1]}" if record.exc_info else ""
            said.append(f"{record.getMessage().partition('. ')[0]}{why}")

    logger, keep = logging.getLogger("gpuhunt"), Keep(level=logging.WARNING)
    before, logger.propagate = logger.propagate, False
    logger.addHandler(keep)
    try:
        yield said
    finally:
        logger.removeHandler(keep)
        logger.propagate = before


@contextlib.contextmanager
def _patience() -> Iterator[None]:
    """A time limit on sockets, of which gpuhunt's downloads have none."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def read_catalog(path: str | os.PathLike[str], read_on: date | None = None) -> tuple[Listing, ...]:
    """The listings of a copy: a zip or folder of PROVIDER.csv files, or one of them. It needs no gpuhunt.

    ``read_on`` is the day of its prices; without it, the day that a zip keeps for each of its files. InputError for a
    copy that is damaged, holds no such file, or does not say its day.
    """
    listings: list[Listing] = []
    for file, provider, text, day in _tables(path):
        if _PROVIDER.fullmatch(provider) is None:
            raise InputError("its name says no provider", file=file, fix="name it PROVIDER.csv, for example aws.csv")
        when = read_on or day
        if when is None:
            raise InputError("it does not say when its prices were read", file=file, fix="give --read-on YYYY-MM-DD")
        listings += _listings_of(text, provider, file, when)
    return tuple(listings)


def _tables(path: str | os.PathLike[str]) -> Iterator[tuple[str, str, str, date | None]]:
    """Each CSV's place, provider, text and day."""
    name = os.fspath(path)
    if os.path.isdir(name):
        try:
            files = sorted(file for file in Path(name).iterdir() if file.suffix == ".csv")
        except OSError as error:
            raise InputError(f"cannot read it: {error.strerror}", file=path, fix="check the path") from error
        if not files:
            raise InputError("the folder holds no CSV file", file=path, fix="give one with aws.csv and the like")
        for file in files:
            yield os.fspath(file), file.stem, read_text(file), None
        return
    data = read_bytes(path)
    if data.startswith(b"PK"):
        yield from _members(data, name)
    else:
        yield name, Path(name).stem, decode_text(data, name), None


def _members(data: bytes, name: str) -> Iterator[tuple[str, str, str, date | None]]:
    left = MOST_BYTES
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [member for member in archive.infolist() if member.filename.endswith(".csv")]
            for member in members:
                with archive.open(member) as file:
                    content = file.read(left + 1)  # a header may lie about the size
                left -= len(content)
                if left < 0:
                    raise InputError(
                        f"it unpacks to more than {MOST_BYTES // 2**20} MiB", file=name, fix="give the catalog itself"
                    )
                place = f"{name}/{member.filename}"
                yield place, Path(member.filename).stem, decode_text(content, place), _day_of(member)
    except _NO_ZIP as error:
        raise InputError(f"it is a damaged zip: {error}", file=name, fix="copy it again") from error
    if not members:
        raise InputError("the zip holds no CSV file", file=name, fix="give one with aws.csv and the like")


def _day_of(member: zipfile.ZipInfo) -> date | None:
    """The day that a zip keeps for a file; 1980, where its time begins, stands for none."""
    year, month, day = member.date_time[:3]
    try:
        return date(year, month, day) if year > 1980 else None
    except ValueError:
        return None


def _listings_of(text: str, provider: str, file: str, read_on: date) -> Iterator[Listing]:
    reader = csv.DictReader(io.StringIO(text), strict=True)
    try:
        for column in COLUMNS:
            if column not in (reader.fieldnames or []):
                raise InputError(f"the column {column} is missing", file=file, line=1, fix="give a catalog of gpuhunt")
        for row in reader:
            try:
                listing = _listing(row, provider, read_on)
            except InputError as error:
                raise error.located(file, reader.line_num) from error
            if listing is not None:
                yield listing
    except csv.Error as error:
        raise InputError(f"not a CSV file: {error}", file=file, line=reader.line_num) from error


def _listing(row: Mapping[str | None, Any], provider: str, read_on: date) -> Listing | None:
    """One row; None for a machine without GPUs."""
    if None in row or None in row.values():
        raise InputError("the row has not as many columns as the header", fix="check the commas")
    count = _number(row, "gpu_count")
    if not (count.is_integer() and 0 <= count <= MOST_GPUS):
        raise InputError(f"gpu_count is {row['gpu_count']!r}", fix=f"give a whole number up to {MOST_GPUS}")
    if not count:
        return None
    spot = str(row["spot"]).strip().lower()
    if spot not in ("true", "false"):
        raise InputError(f"spot is {row['spot']!r}", fix="give True or False")
    instance = " ".join(row["instance_name"].split())
    if not instance:
        raise InputError("the instance has no name", fix="give one")
    return Listing(
        provider=our_provider(provider),
        instance=instance,
        region=_region(provider, " ".join(row["location"].split())),
        gpu=row["gpu_name"].strip(),
        gpu_memory_gib=_number(row, "gpu_memory") if row["gpu_memory"].strip() else None,
        gpu_count=int(count),
        price_usd_per_hour=_number(row, "price"),
        spot=spot == "true",
        read_on=read_on.isoformat(),
        source=f"gpuhunt catalog {provider}",
        special=_special((row.get("flags") or "").split()),
    )


def _number(row: Mapping[str | None, Any], column: str) -> float:
    try:
        return float(row[column])
    except ValueError:
        raise InputError(f"{column} is {row[column]!r}", fix="give a number") from None


def _region(provider: str, location: str) -> str:
    """The region of a location: Google's prices are by region, its catalog lists zones (``us-central1-a``)."""
    return re.sub(r"-[a-z]$", "", location) if provider.lower() == "gcp" else location


def _special(flags: list[str]) -> str | None:
    return next((_SPECIAL[flag] for flag in flags if flag in _SPECIAL), None)
