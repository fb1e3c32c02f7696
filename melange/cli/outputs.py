"""OutputOption: an option that names a file to write, refused before any work where writing it would lose something."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import click

from melange.errors import InputError
from melange.files.places import check_place, same_place


class OutputOption(click.Option):
    """Names a file that the command writes. ``-`` is standard output.

    Parsing raises InputError where nothing can be written there, and where it is a file that another option or argument
    of the same command names, links followed: a command would overwrite its own input, or write two things to one file.
    """

    def handle_parse_result(
        self, ctx: click.Context, opts: Mapping[str, Any], args: list[str]
    ) -> tuple[Any, list[str]]:
        """Convert the value as any option does, then look at it beside all that was given."""
        value, args = super().handle_parse_result(ctx, opts, args)
        if value is not None and self.name in opts and not ctx.resilient_parsing:
            check_place(value)
            choices = {option.name for option in ctx.command.params if isinstance(option.type, click.Choice)}
            for name, other in _texts(opts):
                if name not in choices | {self.name} and same_place(value, other):
                    raise InputError("the command reads or writes it already", file=value, fix="name another file")
        return value, args


def refuse_input(output: str | None, *inputs: str | None) -> None:
    """InputError where an output is a file that an input names, for files that a workload names inside."""
    for file in inputs:
        if output is not None and file is not None and same_place(output, file):
            raise InputError("the workload reads it", file=output, fix="name another file")


def _texts(opts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Every text among the raw values, with its parameter's name."""
    for name, value in opts.items():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, str):
                yield name, item
