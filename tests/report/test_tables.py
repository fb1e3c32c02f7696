from __future__ import annotations

import pytest

from melange.report.tables import percent, rendered, table, usd


def test_numbers():
    assert (usd(1234.5), usd(0.7, 3), usd(None)) == ("$1,234.50", "$0.700", "-")
    assert (percent(0.1349), percent(0.5, 0), percent(None)) == ("13.5%", "50%", "-")


@pytest.mark.parametrize("colour", [False, None])
def test_a_pipe_gets_plain_text(colour):
    text = rendered(table("Fleet", ("name", "count"), [("L4", "1"), ("A100-80GB", "12")]), colour=colour)
    lines = text.splitlines()
    assert lines[0] == "Fleet"
    assert [line.split() for line in lines[-2:]] == [["L4", "1"], ["A100-80GB", "12"]]
    assert len(lines[-1]) == len(lines[-2])
    assert "\x1b" not in text


def test_no_color_is_honoured(monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in rendered("[bold]x[/bold]")
    monkeypatch.delenv("NO_COLOR")
    assert "\x1b" in rendered("[bold]x[/bold]")
