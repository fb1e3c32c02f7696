"""Tables as text, in colour on a terminal and plain elsewhere."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console, Group
from rich.table import Table


def table(title: str | None, columns: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> Group:
    """A table under its title; its first ``left`` columns are left-aligned, the others right-aligned."""
    result = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for n, name in enumerate(columns):
        result.add_column(name, justify="left" if n < left else "right", overflow="fold")
    for row in rows:
        result.add_row(*row)
    return Group(*([f"[bold]{title}[/bold]"] if title else []), result)


def rendered(*parts: object, colour: bool | None = None, width: int | None = None) -> str:
    """The parts as text, one below the other; ``colour`` None means: on a terminal, unless NO_COLOR is set."""
    on = sys.stdout.isatty() and "NO_COLOR" not in os.environ if colour is None else colour
    size = width or (None if on else 110)
    console = Console(
        file=io.StringIO(), force_terminal=on, no_color=not on, width=size, highlight=False, soft_wrap=False
    )
    for part in parts:
        console.print(part)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in text.splitlines()).strip("\n")


def usd(value: float | None, digits: int = 2) -> str:
    """``$4.37``; a dash for None."""
    return "-" if value is None else f"${value:,.{digits}f}"


def percent(value: float | None, digits: int = 1) -> str:
    """``13.5%`` of a fraction; a dash for None."""
    return "-" if value is None else f"{100 * value:.{digits}f}%"
