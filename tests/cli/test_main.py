from __future__ import annotations

import subprocess
import sys

import click
import pytest

from melange.cli.main import COMMANDS, main, melange


def run(*arguments, cwd=None):
    return subprocess.run([sys.executable, "-m", "melange", *arguments], capture_output=True, text=True, cwd=cwd)


def commands(group=melange, path=()):
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


ALL = dict(commands())


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_command_explains_itself_with_an_example(path):
    command = ALL[path]
    text = command.get_help(click.Context(command, info_name=path[-1]))
    assert isinstance(command, click.Group) or "Examples:" in text
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{parameter.opts} has no help"


def test_overview_agrees_with_the_commands():
    for name, (_, text) in COMMANDS.items():
        assert text.endswith(".")
        assert (name,) in ALL


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["solve", "nowhere.yaml"], 2, "nowhere.yaml: cannot read it"),
        (["solve"], 2, "Missing argument 'WORKLOAD'"),
        (["slove"], 2, "No such command 'slove'"),
        (["solve", "arena-120ms", "--rate", "-3"], 2, "rate is -3"),
        (["solve", "arena-120ms", "--rate", "nan"], 2, "rate is nan"),
        (["solve", "arena-120ms", "--rate", "p99"], 2, "'p99' is neither a number nor one of mean, peak, p95"),
        (["solve", "arena-120ms", "--rate", "p95"], 2, "arena-120ms has no windows to take the p95 load of"),
        (["solve", "arena-120ms", "--margin", "15"], 2, "did you mean 15%?"),
        (["solve", "arena-120ms", "--margin", "-1%"], 2, "-1% is not a share from 0"),
        (["solve", "arena-120ms", "--margin", "some"], 2, "'some' is not a share"),
        (["solve", "arena-120ms", "--max", "L4"], 2, "not NAME=NUMBER"),
        (["solve", "arena-120ms", "--max", "L9=1"], 2, "unknown GPU or instance type 'L9'"),
        (["solve", "arena-120ms", "--slo-tpot-ms", "40"], 2, "assume"),
        (["solve", "arena-120ms", "--price-set", "2031"], 2, "unknown price set"),
        (["solve", "arena-120ms", "--prices", "absent.csv"], 2, "absent.csv: cannot read it"),
        (["solve", "arena-120ms", "--only", "L4", "--max", "L4=2"], 3, "no fleet"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(tmp_path, arguments, code, message):
    extra = ["--plan", "plan.json"] if arguments[:1] == ["solve"] and code == 2 else []
    done = run(*arguments, *extra, cwd=tmp_path)
    assert done.returncode == code
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_group_alone_shows_its_help(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["aibrix"])
    assert ended.value.code == 2
    assert "Commands:" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), click.exceptions.Abort(), RuntimeError("of a class being made")]
)
def test_an_interruption_is_one_line_whatever_it_was_turned_into(monkeypatch, capsys, error):
    def interrupted(**_):
        raise error from (None if isinstance(error, KeyboardInterrupt) else KeyboardInterrupt())

    monkeypatch.setattr(melange, "main", interrupted)
    with pytest.raises(SystemExit) as ended:
        main([])
    assert (ended.value.code, capsys.readouterr().err) == (130, "melange: interrupted\n")


def test_another_error_is_not_hidden(monkeypatch):
    def broken(**_):
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(melange, "main", broken)
    with pytest.raises(RuntimeError, match="a fault of ours"):
        main([])
