from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from melange.cli.default_group import DefaultGroup


def group(**more):
    @click.group(cls=DefaultGroup, default="first", **more)
    def both():
        pass

    @both.command()
    @click.option("--loud", is_flag=True)
    def first(loud):
        click.echo(f"first {loud}")

    @both.command()
    def second():
        click.echo("second")

    return both


@pytest.mark.parametrize(
    ("arguments", "said"), [(["--loud"], "first True\n"), (["first"], "first False\n"), (["second"], "second\n")]
)
def test_options_alone_go_to_the_default(arguments, said):
    assert CliRunner().invoke(group(), arguments).output == said


def test_without_arguments_it_helps_or_runs_the_default():
    assert "Commands:" in CliRunner().invoke(group(), []).output
    assert CliRunner().invoke(group(bare=True), []).output == "first False\n"


def test_help_and_unknown_commands_stay_the_groups_own():
    assert "second" in CliRunner().invoke(group(bare=True), ["--help"]).output
    assert "No such command 'third'" in CliRunner().invoke(group(bare=True), ["third"]).output
