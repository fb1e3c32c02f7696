"""How fast, and in how much memory, long traces become workloads; beside a plain loop over the standard library.

Run: python tests/benchmarks/bench_traces.py [--rows 10000000] [--only csv,jsonl]

Every case runs in a process of its own, so that its peak memory is its own. The plain loop reads a part of the rows
with csv.reader or json.loads and sums a dictionary per bucket; its time is scaled to all rows.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from melange.slo import Slo
from melange.workload.histogram import workload_from_trace
from melange.workload.sizes import SizeGrid

GRID = SizeGrid.paper()
START = np.datetime64("2023-11-16T18:15:46.000000")
BATCH_ROWS = 500_000
# name: (text format, gzipped, share of the rows that the plain loop reads)
CASES = {
    "csv": ("csv", False, 0.1),
    "csv-times": ("azure", False, 0.1),
    "csv-gzip": ("csv", True, 0.1),
    "csv-times-gzip": ("azure", True, 0.1),
    "jsonl": ("jsonl", False, 0.05),
    "jsonl-gzip": ("jsonl", True, 0.05),
    "jsonl-blocks": ("blocks", False, 0.02),
}
HEADERS = {"csv": "input_tokens,output_tokens\n", "azure": "TIMESTAMP,ContextTokens,GeneratedTokens\n"}


def batches(rows: int) -> Iterator[tuple[list[int], list[int], np.ndarray]]:
    """Log-normal lengths and Poisson arrivals (in microseconds), as in chat traces."""
    random = np.random.default_rng(2026)
    now = 0.0
    for start in range(0, rows, BATCH_ROWS):
        count = min(BATCH_ROWS, rows - start)
        inputs = np.clip(random.lognormal(5.5, 1.4, count), 1, 60_000).astype(int)
        outputs = np.clip(random.lognormal(5.0, 1.0, count), 1, 8_000).astype(int)
        arrivals = now + np.cumsum(random.exponential(50_000, count))
        now = float(arrivals[-1])
        yield inputs.tolist(), outputs.tolist(), arrivals.astype(np.int64)


def lines(text: str, rows: int) -> Iterator[list[str]]:
    """Lines of a trace in one of the four text formats, batch by batch."""
    block = 1
    for inputs, outputs, arrivals in batches(rows):
        pairs = zip(inputs, outputs, strict=True)
        if text == "csv":
            yield [f"{i},{o}\n" for i, o in pairs]
        elif text == "azure":
            stamps = np.char.replace(np.datetime_as_string(START + arrivals.astype("m8[us]")), "T", " ").tolist()
            yield [f"{t}0,{i},{o}\n" for t, (i, o) in zip(stamps, pairs, strict=True)]
        else:
            batch = []
            for when, (i, o) in zip((arrivals // 1000).tolist(), pairs, strict=True):
                ids = ""
                if text == "blocks":
                    count = -(-i // 512)
                    ids = f', "hash_ids": {[0, *range(block, block + count - 1)]}'
                    block += count - 1
                batch.append(f'{{"timestamp": {when}, "input_length": {i}, "output_length": {o}{ids}}}\n')
            yield batch


def write_trace(path: Path, text: str, rows: int) -> None:
    with path.open("w", encoding="ascii") as file:
        file.write(HEADERS.get(text, ""))
        for batch in lines(text, rows):
            file.writelines(batch)


def pack(path: Path, packed: Path) -> None:
    with path.open("rb") as source, gzip.open(packed, "wb", compresslevel=1) as target:
        shutil.copyfileobj(source, target, 1 << 20)


def measure(path: Path) -> None:
    """Child process: one reading, its figures as JSON on standard output."""
    start, start_cpu = time.perf_counter(), time.process_time()
    _, report = workload_from_trace(path, grid=GRID, slo=Slo(), rate_rps=1)
    figures = {"seconds": time.perf_counter() - start, "cpu_s": time.process_time() - start_cpu}
    print(json.dumps({"rows": report.rows, "peak_mib": peak_mib(), **figures}))


def peak_mib() -> float:
    """Peak memory of this process; getrusage would count what its parent held when it forked."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text(encoding="ascii").split("VmHWM:")[1].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def plain_rows(path: Path, text: str, gzipped: bool) -> Iterator[tuple[int, int, int]]:
    seen: set[int] = set()
    opener = gzip.open if gzipped else open
    with opener(path, "rt", encoding="ascii") as file:
        if text in HEADERS:
            reader = csv.reader(file)
            next(reader)
            yield from ((int(row[-2]), int(row[-1]), 0) for row in reader)
        else:
            for line in file:
                row = json.loads(line)
                blocks = row.get("hash_ids", ())
                hits = next((n for n, block in enumerate(blocks) if block not in seen), len(blocks))
                seen.update(blocks)
                yield row["input_length"], row["output_length"], min(512 * hits, row["input_length"] - 1)


def plain_loop_s(path: Path, text: str, gzipped: bool, rows: int) -> float:
    """Seconds that the plain loop takes for the first ``rows`` rows."""
    start = time.perf_counter()
    sums: dict[tuple[int, int], list[int]] = {}
    for number, (i, o, cached) in enumerate(plain_rows(path, text, gzipped)):
        if number == rows:
            break
        cell = bisect_left(GRID.input_edges_tokens, i), bisect_left(GRID.output_edges_tokens, o)
        total = sums.setdefault(cell, [0, 0, 0, 0, 0])
        total[0] += 1
        total[1] += i
        total[2] += o
        total[3] += i * o
        total[4] += cached
    return time.perf_counter() - start


def run_case(name: str, folder: Path, rows: int) -> str:
    text, gzipped, share = CASES[name]
    path = folder / text
    if not path.exists():
        write_trace(path, text, rows)
    if gzipped:
        packed = folder / f"{text}.gz"
        pack(path, packed)
        path = packed
    command = [sys.executable, __file__, "--measure", str(path)]
    figures = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    if figures["rows"] != rows:
        raise SystemExit(f"{name}: read {figures['rows']} rows of {rows}")
    plain_s = plain_loop_s(path, text, gzipped, int(rows * share)) / share
    return (
        f"{name:16} {path.stat().st_size / 2**20:8.0f} {figures['seconds']:9.2f} {figures['cpu_s']:7.2f} "
        f"{figures['peak_mib']:9.0f} {plain_s:12.1f} {plain_s / figures['seconds']:7.1f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--only", default=",".join(CASES), help="cases, separated by commas")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure is not None:
        measure(options.measure)
        return
    print(f"{options.rows:,} rows")
    print(f"{'case':16} {'file MiB':>8} {'seconds':>9} {'CPU s':>7} {'peak MiB':>9} {'plain loop s':>12} {'ratio':>7}")
    with tempfile.TemporaryDirectory() as folder:
        for name in options.only.split(","):
            print(run_case(name, Path(folder), options.rows), flush=True)


if __name__ == "__main__":
    main()
