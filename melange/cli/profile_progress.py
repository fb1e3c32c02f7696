"""What ``melange profile`` shows while it measures: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click


@contextmanager
def progress_display(slo: Any) -> Iterator[Callable[[Any], None]]:
    """A function that takes :class:`melange.profiler.session.Progress` and shows it on standard error."""
    from melange.capacity.verdict import judge
    from melange.profiler.loadpoint import statistic_text

    click.echo(f"SLO: {slo.describe()}", err=True)

    def outcome(progress: Any) -> str | None:
        if progress.capacity is not None:
            return f"{_cell(progress)}: {progress.capacity.describe()}{_spent(progress)}"
        if progress.point is not None:
            verdict = progress.point.invalid_reason or judge(progress.point, slo)
            return f"{_cell(progress)}: {progress.load.describe()}: {statistic_text(progress.point, slo)}: {verdict}"
        return None

    if not sys.stderr.isatty():

        def plain(progress: Any) -> None:
            text = outcome(progress)
            if text is not None:
                click.echo(text, err=True)

        yield plain
        return
    from rich.console import Console
    from rich.status import Status

    console = Console(stderr=True)
    with Status("starting the engine", console=console, refresh_per_second=2) as status:

        def live(progress: Any) -> None:
            text = outcome(progress)
            if text is not None:
                console.print(text, markup=False, highlight=False)
            elif progress.load is not None:
                now = f": {progress.statistic}" if progress.statistic else ""
                status.update(f"{_cell(progress)}: {progress.load.describe()}{now}{_spent(progress)}")

        yield live


def _cell(progress: Any) -> str:
    return f"cell {progress.cell}/{progress.cells}, {progress.size.describe()}"


def _spent(progress: Any) -> str:
    parts = [f"{progress.spent_s / 60:.1f} min"]
    if progress.spent_usd is not None:
        parts.append(f"${progress.spent_usd:.2f}")
    if math.isfinite(progress.left_s):
        parts.append(f"{max(progress.left_s, 0) / 60:.1f} min left")
    return f" [{', '.join(parts)}]"
