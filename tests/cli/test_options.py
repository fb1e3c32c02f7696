"""Parsing that several commands share."""

from __future__ import annotations

import io

import click
import pytest

from melange.cli.options import names, numbers, output_option, pairs, progress_bar


def test_pairs():
    assert pairs(None, None, ("L4=3", " H100 = 0")) == {"L4": 3, "H100": 0}
    assert pairs(None, None, ("a=b=1",)) == {"a=b": 1}


@pytest.mark.parametrize("values", [("L4",), ("=3",), ("L4=",), ("L4=-1",), ("L4=1.5",), ("L4=²",), ("L4=1", "L4=2")])
def test_what_are_no_pairs(values):
    with pytest.raises(click.BadParameter):
        pairs(None, None, values)


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
