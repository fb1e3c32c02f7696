"""Interference tables: reading, writing, and the choices of shares that they leave."""

from __future__ import annotations

from pathlib import Path

import pytest

from melange.errors import InputError
from melange.files.shipped import data_path
from melange.perfmodel.interference import Interference, read_interference, write_interference


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    table = read_interference(data_path("profiles/nanoflow/interference-paper.yaml"))
    write_interference(tmp_path / "table.yaml", table)
    assert read_interference(tmp_path / "table.yaml") == table


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("memory: [[0.5, 0.7], [0.4, 0.8]]", "ascend"),
        ("memory: [[0.4, 0.8], [0.5, 0.7]]", "not fall"),
        ("memory: [[1.0, 1.0]]", "shares in"),
        ("memory: [[0.4, 0]]", "performances in"),
        ("memory: [0.4, 0.8]", "list of pairs"),
        ("memory: {}", "list of pairs"),
        ("memry: []", "unknown key 'memry'"),
    ],
)
def test_bad_interference_is_refused_with_its_place(tmp_path: Path, rows: str, message: str) -> None:
    (tmp_path / "table.yaml").write_text(f"version: 1\ngpu: X\nsource: a test\n{rows}\n", encoding="utf-8")
    with pytest.raises(InputError, match=rf"table.yaml:4:\d+: .*{message}"):
        read_interference(tmp_path / "table.yaml")


def test_gemms_may_keep_what_the_others_leave() -> None:
    table = Interference(gpu="X", source="a test", memory=((0.4, 0.8),), network=((0.1, 0.5),))
    curves = table.curves()
    assert curves["compute"] == ((0.5, 0.5), (0.6, 0.6), (0.9, 0.9), (1.0, 1.0))
    assert curves["memory"] == ((0.4, 0.8), (1.0, 1.0))


def test_three_share_the_device_only_with_collectives() -> None:
    table = Interference(gpu="X", source="a test", memory=((0.4, 0.8),), network=((0.1, 0.5),))
    assert table.curves(collectives=False)["compute"] == ((0.6, 0.6), (1.0, 1.0))
    assert table.curves(collectives=False)["memory"] == table.curves()["memory"]
    assert Interference(gpu="X", source="a test").curves()["compute"] == ((1.0, 1.0),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("version: 2\ngpu: X\nsource: s\n", r"table.yaml:1:\d+: .*version is 2"),
        ("version: 1\ngpu: X\n", "the key 'source' is missing"),
        ("version: 1\ngpu: [X]\nsource: s\n", r"table.yaml:2:\d+: .*gpu is \['X'\]"),
    ],
)
def test_a_file_says_what_it_is_of(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "table.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        read_interference(tmp_path / "table.yaml")
