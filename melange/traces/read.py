"""The doors to trace files: ``iter_trace`` in stretches of bounded memory, ``read_trace`` at once."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from itertools import chain

from melange.errors import InputError
from melange.traces import delimited, jsonl
from melange.traces.layout import TimeUnit, find_layout
from melange.traces.parquet import ParquetTrace
from melange.traces.prefixes import PrefixCache
from melange.traces.rows import Assembler, Rows
from melange.traces.source import Progress, Source, container_of, first_block, line_blocks, open_source
from melange.traces.trace import Trace

CSV_BLOCK_BYTES = 4 << 20
# Parsed JSON is twenty times the size of its text: small blocks stay in the processor's cache.
JSONL_BLOCK_BYTES = 256 << 10


def iter_trace(
    path: str | os.PathLike[str],
    *,
    format: str = "auto",
    columns: Mapping[str, str] | None = None,
    time_unit: TimeUnit | None = None,
    block_tokens: int = 512,
    block_bytes: int | None = None,
    on_progress: Progress | None = None,
) -> Iterator[Trace]:
    """A trace file's requests, in the file's order, in stretches of bounded memory.

    CSV and JSONL, plain or gzipped, and Parquet are told apart by their content. ``format`` is ``auto`` or one of:

    - ``tokens``: input_tokens, output_tokens; where there, arrival_s, cached_tokens and session
    - ``azure``: TIMESTAMP (ISO 8601, or ``XXX`` for none), ContextTokens, GeneratedTokens
    - ``mooncake``: timestamp (ms), input_length, output_length; where there, hash_ids
    - ``burstgpt``: Timestamp (s), Request tokens, Response tokens; where there, Session ID
    - ``columns``: what ``columns`` says: role -> column name, with the roles input, output (both needed), time,
      cached, session and hash_ids

    ``time_unit`` (s, ms, us, ns or iso) is the format's own unless given; a mapped time column is in seconds where its
    first value is a number, ISO 8601 otherwise. Arrivals are counted from the first row. From ``hash_ids`` (the ids of
    a prompt's blocks of ``block_tokens`` tokens) the cached tokens are those of an infinite prefix cache: an upper
    bound. ``block_bytes`` is how much text is read at a time. ``on_progress(done, total)`` hears of bytes of the file.

    InputError, with line and column: a value that is no number, negative, fractional or missing. InputError: a file
    that is missing, empty, binary, truncated, without rows or not recognised. MissingExtraError: Parquet without
    pyarrow. Zero-token requests are no errors.
    """
    if block_tokens < 1 or (block_bytes is not None and block_bytes < 1):
        raise InputError(f"block_tokens {block_tokens}, block_bytes {block_bytes}", fix="both are at least 1")
    options = {"format": format, "columns": columns, "time_unit": time_unit}
    return _stretches(path, options, PrefixCache(block_tokens), block_bytes, on_progress)


def read_trace(
    path: str | os.PathLike[str],
    *,
    format: str = "auto",
    columns: Mapping[str, str] | None = None,
    time_unit: TimeUnit | None = None,
    block_tokens: int = 512,
) -> Trace:
    """A whole trace in memory, in the order of arrival; arguments and errors as for :func:`iter_trace`."""
    parts = iter_trace(path, format=format, columns=columns, time_unit=time_unit, block_tokens=block_tokens)
    return Trace.joined(list(parts)).in_order()


def _stretches(
    path: str | os.PathLike[str],
    options: Mapping[str, object],
    prefixes: PrefixCache,
    block_bytes: int | None,
    on_progress: Progress | None,
) -> Iterator[Trace]:
    with open_source(path, on_progress=on_progress) as source:
        container = container_of(source)
        if container == "prometheus":
            raise InputError(
                "Prometheus metrics tell no single requests",
                file=path,
                fix="make a workload of them: 'melange workload from-trace', or workload_from_trace",
            )
        if container == "parquet":
            assembler, rows = _parquet(source, options, prefixes)
        elif container == "jsonl":
            assembler, rows = _jsonl(source, options, prefixes, block_bytes or JSONL_BLOCK_BYTES)
        else:
            assembler, rows = _csv(source, options, prefixes, block_bytes or CSV_BLOCK_BYTES)
        empty = True
        for part in rows:
            empty = False
            yield assembler.trace(part)
        if empty:
            raise InputError("the trace has no rows", file=path, fix="give a file with at least one request")


Reading = tuple[Assembler, Iterator[Rows]]


def _csv(source: Source, options: Mapping[str, object], prefixes: PrefixCache, block_bytes: int) -> Reading:
    blocks = line_blocks(source, block_bytes, quotes=True)
    head = first_block(blocks, 2)
    header, first = delimited.read_header(source.path, head)
    layout = find_layout(header.names, first, file=source.path, **options)  # type: ignore[arg-type]
    if "hash_ids" in layout.roles:
        raise InputError(
            "hash_ids in a CSV file", file=source.path, fix="lists of blocks are read from JSONL and Parquet"
        )
    rows = delimited.read_rows(source.path, header, layout, chain([head], blocks))
    return Assembler(layout=layout, prefixes=prefixes), rows


def _jsonl(source: Source, options: Mapping[str, object], prefixes: PrefixCache, block_bytes: int) -> Reading:
    blocks = line_blocks(source, block_bytes, quotes=False)
    head = first_block(blocks, 1)
    first = jsonl.first_object(source.path, head)
    layout = find_layout(tuple(first), first, file=source.path, **options)  # type: ignore[arg-type]
    return Assembler(layout=layout, prefixes=prefixes), jsonl.read_rows(source.path, layout, chain([head], blocks))


def _parquet(source: Source, options: Mapping[str, object], prefixes: PrefixCache) -> Reading:
    trace = ParquetTrace(source.path)
    layout = find_layout(trace.names, trace.first_row(), file=source.path, **options)  # type: ignore[arg-type]
    return Assembler(layout=layout, prefixes=prefixes), trace.read_rows(layout)
