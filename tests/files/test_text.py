from __future__ import annotations

import os
import stat

import pytest

from melange import InputError
from melange.files.places import check_place
from melange.files.text import parse_json, read_json_object, read_text, write_atomic


def test_replacing_keeps_the_mode_and_leaves_nothing_else(tmp_path):
    file = tmp_path / "a.txt"
    write_atomic(file, "one")
    file.chmod(0o640)
    write_atomic(file, b"two\n")
    assert file.read_bytes() == b"two\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    file = tmp_path / "a.txt"
    write_atomic(file, "old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"a\.txt: cannot write it: No space left"):
        write_atomic(file, "new")
    assert file.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("name", ["missing/a.txt", "."])
def test_what_cannot_be_written(tmp_path, name):
    with pytest.raises(InputError, match="cannot write it"):
        write_atomic(tmp_path / name, "text")
    assert os.listdir(tmp_path) == []


def test_reading(tmp_path):
    file = tmp_path / "a.txt"
    file.write_bytes(b"\xef\xbb\xbfa\r\nb\n")
    assert read_text(file) == "a\nb\n"
    file.write_bytes(b"\x80\x81")
    with pytest.raises(InputError, match="not a text file"):
        read_text(file)
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(InputError, match="cannot read it"):
            read_text(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": }', r"f.json:4:7: not valid JSON"),
        ('{\n"a" 1}', r"f.json:5:5: not valid JSON"),
        ('{"a": ' + "9" * 5000 + "}", r"f.json:4: not readable JSON: a number is too large"),
        ("[" * 100_000, r"f.json:4: not readable JSON: nested too deep"),
        (b"\xff", r"f.json:4: not readable JSON"),
    ],
)
def test_json_that_is_none(text, message):
    with pytest.raises(InputError, match=message):
        parse_json(text, "f.json", 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1000000000000000001}', r"f.json:1: not readable JSON: a number is too large"),
        ('{"a": -1e999}', r"f.json:1: not readable JSON: a number is too large"),
        ("[1]", "holds no JSON object but a list; give another"),
    ],
)
def test_objects_that_are_none(tmp_path, text, message):
    (tmp_path / "f.json").write_text(text)
    with pytest.raises(InputError, match=message):
        read_json_object(tmp_path / "f.json", fix="give another")


def test_numbers_that_are_far_from_the_limits_are_read_exactly(tmp_path):
    (tmp_path / "f.json").write_text('{"a": 1000000000000000000, "b": -3, "c": 1e308, "d": Infinity}')
    assert read_json_object(tmp_path / "f.json", fix="") == {"a": 10**18, "b": -3, "c": 1e308, "d": float("inf")}


def test_a_place_is_looked_at_before_the_work(tmp_path):
    check_place(tmp_path / "new.json")
    for place, why in ((tmp_path, "it is a folder"), (tmp_path / "missing" / "x.json", "its folder does not exist")):
        with pytest.raises(InputError, match=why):
            check_place(place)
