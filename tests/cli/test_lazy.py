"""Groups that import a command only when it is used."""

from __future__ import annotations

import sys

import click
import pytest
from click.testing import CliRunner

from melange.cli.lazy import LazyGroup

PLACES = {"later": ("lazy_example:command", "Says so."), "absent": ("no_such_module:command", "Is not there.")}


@pytest.fixture
def group(tmp_path, monkeypatch):
    (tmp_path / "lazy_example.py").write_text(
        "import click\n\n\n@click.command()\ndef command():\n    click.echo('imported')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield LazyGroup("all", places=PLACES)
    sys.modules.pop("lazy_example", None)


def test_the_overview_imports_nothing(group):
    text = CliRunner().invoke(group, ["--help"]).output
    assert [line.split(None, 1) for line in text.splitlines()[-2:]] == [
        ["later", "Says so."],
        ["absent", "Is not there."],
    ]
    assert group.list_commands(click.Context(group)) == ["later", "absent"]
    assert "lazy_example" not in sys.modules


def test_a_command_is_imported_when_used(group):
    assert CliRunner().invoke(group, ["later"]).output == "imported\n"
    assert "lazy_example" in sys.modules


def test_an_unknown_command_is_a_usage_error(group):
    done = CliRunner().invoke(group, ["never"])
    assert done.exit_code == 2
    assert "No such command 'never'" in done.output
