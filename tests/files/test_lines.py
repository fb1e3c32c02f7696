"""Files of lines grow by whole lines only: torn tails, missing newlines, full disks, other writers, replaced files."""

from __future__ import annotations

import errno
import json
import os
import random
from pathlib import Path

import pytest

from melange.errors import InputError
from melange.files.lines import LineFile, replace_lines

WHOLE = b'{"record": "a"}\n{"record": "b"}\n'


def test_lines_are_appended(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with LineFile(path) as file:
        file.append('{"n": 1}\n')
        file.append('{"n": 2}\n')
    with LineFile(path) as file:
        file.append('{"n": 3}\n')
    assert [json.loads(line)["n"] for line in path.read_text().splitlines()] == [1, 2, 3]


def test_a_whole_last_line_without_its_newline_gets_it(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(WHOLE[:-1])
    said: list[str] = []
    with LineFile(path, warn=said.append) as file:
        file.append('{"record": "c"}\n')
    assert path.read_bytes() == WHOLE + b'{"record": "c"}\n'
    assert said == []


@pytest.mark.parametrize("seed", range(20))
def test_a_file_cut_anywhere_loses_no_byte(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    path = tmp_path / "a.jsonl"
    cut = WHOLE[: draw.randrange(1, len(WHOLE))]
    path.write_bytes(cut)
    said: list[str] = []
    with LineFile(path, warn=said.append) as file:
        file.append('{"record": "c"}\n')
        torn = file.torn
    for line in path.read_bytes().splitlines():
        json.loads(line)
    whole = cut.rfind(b"\n") + 1
    if torn is None:
        assert path.read_bytes() == (cut if cut.endswith(b"\n") else cut + b"\n") + b'{"record": "c"}\n'
        assert said == []
    else:
        assert torn.read_bytes() == cut[whole:]
        assert str(torn) in said[0]


def test_what_is_set_aside_never_replaces_what_was(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    for tail in (b'{"first', b'{"second'):
        with path.open("ab") as file:
            file.write(tail)
        with LineFile(path):
            pass
    assert [(tmp_path / f"a.jsonl.torn-{n}").read_bytes() for n in (1, 2)] == [b'{"first', b'{"second']
    assert path.read_bytes() == b""


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(WHOLE)
    real = os.write
    room = [5]

    def full(file: int, data: bytes) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = real(file, data[: room[0]])
        room[0] -= written
        return written

    with LineFile(path) as file:
        monkeypatch.setattr(os, "write", full)
        with pytest.raises(InputError, match="No space left on device; what it held before is kept"):
            file.append('{"record": "c"}\n')
        monkeypatch.undo()
    assert path.read_bytes() == WHOLE


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with LineFile(path) as file:
        with pytest.raises(InputError, match="another profile run is writing it"), LineFile(path):
            pass
        with pytest.raises(InputError, match="another profile run is writing it"):
            replace_lines(path, "")
        file.append('{"n": 1}\n')
    replace_lines(path, '{"n": 2}\n')
    assert path.read_text() == '{"n": 2}\n'


@pytest.mark.parametrize("how", ["deleted", "replaced"])
def test_a_file_that_is_gone_is_noticed_and_nothing_is_lost(tmp_path: Path, how: str) -> None:
    path = tmp_path / "a.jsonl"
    with LineFile(path) as file:
        file.append('{"n": 1}\n')
        if how == "deleted":
            path.unlink()
        else:
            other = tmp_path / "other"
            other.write_text("{}\n")
            other.replace(path)
        with pytest.raises(InputError, match=r"deleted or replaced while it was written.*a\.jsonl\.kept-1"):
            file.append('{"n": 2}\n')
    assert (tmp_path / "a.jsonl.kept-1").read_text() == '{"n": 1}\n{"n": 2}\n'


def test_a_pipe_is_written_to_as_it_is(tmp_path: Path) -> None:
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    with LineFile(fifo) as file:
        file.append('{"n": 1}\n')
    assert os.read(reader, 100) == b'{"n": 1}\n'
    os.close(reader)


def test_a_file_that_was_made_and_stayed_empty_goes(tmp_path):
    with LineFile(tmp_path / "new.jsonl"):
        assert (tmp_path / "new.jsonl").exists()
    assert not (tmp_path / "new.jsonl").exists()
    (tmp_path / "old.jsonl").touch()
    with LineFile(tmp_path / "old.jsonl"):
        pass
    assert (tmp_path / "old.jsonl").exists()
