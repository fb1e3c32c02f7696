"""Parsing that several commands share."""

from __future__ import annotations

import io
import sys
import threading

import click
import pytest

from melange import parallel
from melange.cli.options import (
    jobs_options,
    names,
    numbers,
    output_option,
    owned,
    pairs,
    place,
    progress_bar,
    waiting,
)  # fmt: skip


def test_pairs():
    assert pairs(None, None, ("L4=3", " H100 = 0")) == {"L4": 3, "H100": 0}
    assert pairs(None, None, ("a=b=1",)) == {"a=b": 1}


@pytest.mark.parametrize("values", [("L4",), ("=3",), ("L4=",), ("L4=-1",), ("L4=1.5",), ("L4=²",), ("L4=1", "L4=2")])
def test_what_are_no_pairs(values):
    with pytest.raises(click.BadParameter):
        pairs(None, None, values)


def test_owned():
    assert owned(None, None, ("L4=3", "H100:8=16", "p5.48xlarge=2")) == {
        "L4": (3, None), "H100": (16, 8), "p5.48xlarge": (2, None)
    }  # fmt: skip
    for values in (("H100",), ("H100:=8",), ("H100:x=8",), ("H100:0=8",), ("H100:8=4",), ("H100=8", "H100:8=8")):
        with pytest.raises(click.BadParameter):
            owned(None, None, values)


def test_names():
    assert names(None, None, ("L4, A10G", "H100")) == ("L4", "A10G", "H100")
    assert names(None, None, ()) == ()
    with pytest.raises(click.BadParameter, match="a name is empty"):
        names(None, None, ("L4,,H100",))


def test_numbers():
    assert numbers(None, None, ("1,2", " 4")) == (1, 2, 4)
    for text in ("0", "x", "1,", "-2", "1.5"):
        with pytest.raises(click.BadParameter, match="not a whole number from 1"):
            numbers(None, None, (text,))


def test_the_first_format_is_the_default():
    @click.command()
    @output_option("json", "csv")
    def command(output):
        return output

    assert command.main([], standalone_mode=False) == "json"
    assert command.main(["-o", "csv"], standalone_mode=False) == "csv"
    with pytest.raises(click.BadParameter):
        command.main(["-o", "table"], standalone_mode=False)


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("stream", "shown"), [(io.StringIO, False), (Terminal, True)])
def test_a_bar_is_for_terminals_alone(monkeypatch, stream, shown):
    error = stream()
    monkeypatch.setattr("sys.stderr", error)
    with progress_bar("counting") as tell:
        tell(1, 2)
        tell(2, 2)
    assert ("counting" in error.getvalue()) == shown


def test_elsewhere_a_long_job_says_how_far_it_is(monkeypatch, capsys):
    monkeypatch.setattr("melange.cli.options.PATIENCE_S", 0.0)
    monkeypatch.setattr("melange.cli.options.REMINDER_S", 1e9)
    with progress_bar("counting") as tell:
        for done in range(3):
            tell(done, 2)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "counting: 0 of 2 (0 s)\n"


def test_waiting_says_what_for_on_stderr(monkeypatch, capsys):
    monkeypatch.setattr("melange.cli.options.PATIENCE_S", 0.0)
    spoken = threading.Event()
    monkeypatch.setattr("click.echo", lambda text, err: spoken.set() or print(text, file=sys.stderr))
    with waiting("solving small"):
        assert spoken.wait(60)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("solving small (")


def test_quick_work_says_nothing(monkeypatch, capsys):
    monkeypatch.setattr("melange.cli.options.PATIENCE_S", 1e6)
    with waiting("solving small"), progress_bar("counting") as tell:
        tell(1, 1)
    assert capsys.readouterr().err == ""


def test_jobs_are_one_a_core_and_here_unless_asked_otherwise(monkeypatch):
    @click.command()
    @jobs_options("points")
    def command(**given):
        return given

    monkeypatch.setattr("melange.parallel.cores", lambda: 7)
    given = command.main([], standalone_mode=False)
    assert place(given)[0] == 7
    with place(given)[1]:
        assert parallel._ray.get() is None
    assert place(command.main(["--jobs", "3"], standalone_mode=False))[0] == 3
    with pytest.raises(click.BadParameter):
        command.main(["--on", "mars"], standalone_mode=False)
