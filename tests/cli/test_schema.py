"""``melange schema`` as users call it."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from melange.cli.main import melange as cli
from melange.files.documents import SCHEMAS, load_schema


@pytest.mark.parametrize("name", SCHEMAS)
def test_command_prints_it(name):
    done = CliRunner().invoke(cli, ["schema", name])
    assert done.exit_code == 0
    assert json.loads(done.stdout) == load_schema(name)


def test_command_names_what_there_is():
    done = CliRunner().invoke(cli, ["schema", "wrokload"])
    assert "use one of workload, measurements, plan" in str(done.exception)
