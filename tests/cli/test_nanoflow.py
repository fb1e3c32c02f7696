"""``melange nanoflow`` as a group, and what its commands hand on."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from melange.cli.nanoflow import COMMANDS, measure, nanoflow


def test_every_command_is_where_the_overview_says():
    context = click.Context(nanoflow)
    assert nanoflow.list_commands(context) == ["analyse", "search", "measure", "serve"]
    for name, (_, text) in COMMANDS.items():
        command = nanoflow.get_command(context, name)
        assert command.name == name
        assert "Examples:" in command.help
        assert text.endswith(".")


@pytest.mark.parametrize("arguments", [[], ["-o", "x", "--layers", "1"], ["-o", "x", "--dtype", "fp8"]], ids=" ".join)
def test_measuring_refuses_what_cannot_be(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(measure, arguments).exit_code == 2
    assert list(tmp_path.iterdir()) == []
