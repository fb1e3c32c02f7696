"""Parsing that several commands share: NAME=NUMBER pairs, lists, output formats."""

from __future__ import annotations

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
    result = {}
    for value in values:
        name, equals, number = value.rpartition("=")
        if not equals or not name or not number.strip().isdigit():
            raise click.BadParameter(f"{value!r} is not NAME=NUMBER, for example L4=3", ctx, param)
        result[name.strip()] = int(number)
    return result


def names(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """``("L4,A10G", "H100")`` -> ``("L4", "A10G", "H100")``."""
    return tuple(part.strip() for value in values for part in value.split(",") if part.strip())


def numbers(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[float, ...]:
    """``"1,2,4"`` -> ``(1.0, 2.0, 4.0)``."""
    try:
        return tuple(float(part) for part in (value or "").split(",") if part.strip())
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a list of numbers such as 1,2,4", ctx, param) from None


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr where that is a terminal, a line at the start and the end elsewhere."""
    if not sys.stderr.isatty():
        click.echo(f"{what} ...", err=True)
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
