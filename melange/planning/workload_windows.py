"""The windows of a workload file, or how it asks its trace to be cut into them, as values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from melange.errors import InputError
from melange.files.documents import Document
from melange.workload.windows import Window, WindowRule, check_order, check_windows

Cells = Sequence[tuple[int, int]]


def read_windows(document: Document, cells: Cells, shape: tuple[int, int]) -> tuple[Window, ...]:
    """The file's windows, whose requests are listed in the order of its buckets, those of ``cells`` of the grid."""
    windows: list[Window] = []
    for n, row in enumerate(document.data.get("windows", ())):
        counts = row["requests"]
        if len(counts) != len(cells):
            raise document.error(
                ("windows", n, "requests"),
                f"the window has {len(counts)} numbers of requests, the workload {len(cells)} buckets",
                "give one for each of sizes.buckets, in their order",
            )
        requests = np.zeros(shape)
        for cell, count in zip(cells, counts, strict=True):
            requests[cell] = count
        windows.append(Window(start_s=row["start_s"], length_s=row["length_s"], requests=requests))
        try:
            if n:
                check_order(windows[-2], windows[-1])
        except InputError as error:
            raise document.error(("windows", n, "start_s"), error.problem, error.fix) from error
    try:
        check_windows(windows, shape)
    except InputError as error:
        raise document.error(("windows",), error.problem, error.fix) from error
    return tuple(windows)


def window_rule(document: Document) -> WindowRule | None:
    """How the file asks its trace to be cut into windows; None for not at all."""
    row = document.data["trace"]
    if row.get("windows") == "none":
        return None
    minutes = row.get("window_minutes")
    try:
        return WindowRule(count=row.get("windows"), length_s=None if minutes is None else 60.0 * minutes)
    except InputError as error:
        raise document.error(("trace", "windows"), error.problem, error.fix) from error
