"""Parsing that several commands share: NAME=NUMBER pairs, lists, output formats."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

OUTPUTS = ("table", "json", "yaml", "csv")


def output_option(*formats: str) -> Callable[[Any], Any]:
    """The ``-o`` option with these formats, the first being the default."""
    return click.option(
        "-o", "--output", type=click.Choice(formats), default=formats[0], show_default=True, help="Output format."
    )


def pairs(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, int]:
    """``("L4=3", "H100=0")`` -> ``{"L4": 3, "H100": 0}``."""
    result: dict[str, int] = {}
    for value in values:
        name, equals, number = (part.strip() for part in value.rpartition("="))
        if not equals or not name or not re.fullmatch("[0-9]{1,9}", number):
            raise click.BadParameter(f"{value!r} is not NAME=NUMBER, for example L4=3", ctx, param)
        if name in result:
            raise click.BadParameter(f"{name} is given twice", ctx, param)
        result[name] = int(number)
    return result


def names(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """``("L4,A10G", "H100")`` -> ``("L4", "A10G", "H100")``."""
    parts = tuple(part.strip() for value in values for part in value.split(","))
    if not all(parts):
        raise click.BadParameter("a name is empty; give names such as L4,A10G", ctx, param)
    return parts


def numbers(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[int, ...]:
    """``("1,2", "4")`` -> ``(1, 2, 4)``."""
    parts = [part.strip() for value in values for part in value.split(",")]
    for part in parts:
        if not re.fullmatch("[0-9]{1,9}", part) or not int(part):
            raise click.BadParameter(f"{part!r} is not a whole number from 1; give numbers such as 1,2,4", ctx, param)
    return tuple(map(int, parts))


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr where that is a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
