"""Parsing that several commands share: NAME=NUMBER pairs, lists, output formats."""

from __future__ import annotations

import math
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import Event, Thread
from typing import Any

import click

OUTPUTS = ("table", "json", "yaml", "csv")

PATIENCE_S = 2.0
"""Silence that a user takes for work; infinity where nobody waits, as in tests."""
REMINDER_S = 10.0

_ON = (
    "Where {what} run: here, or on the existing Ray cluster of $RAY_ADDRESS or this machine (extra 'cluster'), all its "
    "cores at a time, with the same answer  [default: local]"
)


def warning(text: str) -> None:
    """Say on standard error what a user should know, though the command goes on."""
    click.echo(f"warning: {text}", err=True)


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
        if equals and name and re.fullmatch("[0-9]{10,}", number):
            raise click.BadParameter(f"{value[:60]!r} is more than 999999999 of them", ctx, param)
        if not equals or not name or not re.fullmatch("[0-9]{1,9}", number):
            raise click.BadParameter(f"{value!r} is not NAME=NUMBER, for example L4=3", ctx, param)
        if name in result:
            raise click.BadParameter(f"{name} is given twice", ctx, param)
        result[name] = int(number)
    return result


def owned(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, tuple[int, int | None]]:
    """``("L4=3", "H100:8=16")`` -> ``{"L4": (3, None), "H100": (16, 8)}``: how many, and the GPUs of a machine."""
    result: dict[str, tuple[int, int | None]] = {}
    for name, count in pairs(ctx, param, values).items():
        gpu, colon, size = name.rpartition(":")
        if colon and not re.fullmatch("[1-9][0-9]{0,4}", size):
            raise click.BadParameter(f"{name!r} has no number of GPUs after its colon, as H100:8 has", ctx, param)
        if (gpu or name) in result:
            raise click.BadParameter(f"{gpu or name} is given twice", ctx, param)
        if colon and count % int(size):
            raise click.BadParameter(f"{count} {gpu} are no whole number of machines of {size}", ctx, param)
        result[gpu or name] = (count, int(size) if colon else None)
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


def jobs_options(what: str) -> Callable[[Any], Any]:
    """``--jobs`` and ``--on``, for a command whose independent jobs are these."""

    def add(command: Any) -> Any:
        command = click.option("--on", type=click.Choice(["local", "ray"]), help=_ON.format(what=what))(command)
        jobs_help = f"{what} at a time, on this machine  [default: one a core]"
        return click.option("--jobs", type=click.IntRange(1, 1024), help=jobs_help)(command)

    return add


def place(given: dict[str, Any]) -> tuple[int, AbstractContextManager[None]]:
    """What a command with :func:`jobs_options` was given: how many jobs at a time, and a context for where they run."""
    from melange.parallel import cores, on_ray

    return given["jobs"] or cores(), on_ray() if given["on"] == "ray" else nullcontext()


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Says on stderr what takes so long, first after PATIENCE_S and then every REMINDER_S."""
    done, began = Event(), time.monotonic()

    def remind() -> None:
        patience_s = PATIENCE_S
        while not done.wait(patience_s):
            click.echo(f"{what} ({time.monotonic() - began:.0f} s)", err=True)
            patience_s = REMINDER_S

    if math.inf == PATIENCE_S:
        yield
        return
    thread = Thread(target=remind, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr where that is a terminal; elsewhere a line now and then, first after PATIENCE_S."""
    if not sys.stderr.isatty():
        yield _told_in_lines(what)
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _told_in_lines(what: str) -> Callable[[int, int], None]:
    began = last = time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - began >= PATIENCE_S and (last == began or now - last >= REMINDER_S):
            last = now
            click.echo(f"{what}: {done} of {total} ({now - began:.0f} s)", err=True)

    return tell
