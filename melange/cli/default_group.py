"""DefaultGroup: a command group that runs one of its commands when none is named."""

from __future__ import annotations

from typing import Any

import click


class DefaultGroup(click.Group):
    """A group that runs ``default`` when it is called with options only, and else the named subcommand.

    ``bare``: it runs it without any argument, too, where other groups show their help.
    """

    def __init__(self, *args: Any, default: str, bare: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.default = default
        self.bare = bare

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Send options that are no call for help to the default."""
        if args[0].startswith("-") and args[0] not in ctx.help_option_names if args else self.bare:
            args = [self.default, *args]
        return super().parse_args(ctx, args)
