"""Reading from and writing to whatever a name may stand for."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from melange.errors import InputError
from melange.files import places
from melange.files.places import check_place, pipes_held, read_bytes, same_place, write_bytes


def test_a_link_is_followed_and_stays(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    link.symlink_to("target")
    write_bytes(link, b"new")  # a link to what is not there yet makes it
    write_bytes(link, b"newer")
    assert link.is_symlink()
    assert target.read_bytes() == b"newer"
    assert sorted(os.listdir(tmp_path)) == ["link", "target"]


def test_another_hard_link_keeps_what_it_had(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    os.link(tmp_path / "a", tmp_path / "b")
    write_bytes(tmp_path / "a", b"new")
    assert (tmp_path / "b").read_bytes() == b"old"


def test_devices_and_pipes_are_written_to_and_stay(tmp_path: Path) -> None:
    write_bytes("/dev/null", b"gone")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    write_bytes(pipe, b"x" * 200_000)
    reader.join()
    assert read == [b"x" * 200_000]
    assert stat.S_ISFIFO(os.stat(pipe).st_mode)


def test_a_descriptor_is_written_to(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as file:
        file.write(b"before ")
        file.flush()
        write_bytes(f"/proc/self/fd/{file.fileno()}", b"after")
    assert (tmp_path / "log").read_bytes() == b"before after"


def test_a_pipe_that_nobody_reads_or_writes_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "PATIENCE_S", 0.2)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="nobody reads from this pipe"):
        write_bytes(tmp_path / "pipe", b"x")
    with pytest.raises(InputError, match="nobody wrote to this pipe"):
        read_bytes(tmp_path / "pipe")


def test_a_pipe_is_read_once_and_kept_for_one_command(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for text in (b"first", b"second"):
        writer = threading.Thread(target=pipe.write_bytes, args=(text,))
        writer.start()
        with pipes_held():
            assert read_bytes(pipe) == read_bytes(pipe) == text
        writer.join()


def test_what_is_endless_or_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="more than 1 MiB"):
        read_bytes("/dev/zero", 2**20)
    (tmp_path / "big").write_bytes(b"x" * (2**20 + 1))
    with pytest.raises(InputError, match="more than 1 MiB"):
        read_bytes(tmp_path / "big", 2**20)
    for name in (tmp_path, tmp_path / "missing", "nul\0byte", tmp_path / ("n" * 300)):
        with pytest.raises(InputError, match="cannot read it"):
            read_bytes(name)


def test_places_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_bytes(b"")
    places_and_reasons = {
        "": "empty", " ": "empty", f"{tmp_path}/": "folder", f"{tmp_path}/new/": "folder", "nul\0byte": "null byte",
        f"{tmp_path}/{'n' * 300}": "too long", f"{tmp_path}/loop": "levels of symbolic links",
        f"{tmp_path}/file/x": "Not a directory", f"{tmp_path}/no/x": "does not exist",
        "/dev/fd/987": "Bad file descriptor",
    }  # fmt: skip
    for name, reason in places_and_reasons.items():
        for way in (check_place, lambda name: write_bytes(name, b"x")):
            with pytest.raises(InputError, match=reason):
                way(name)
    assert sorted(os.listdir(tmp_path)) == ["file", "loop"]


def test_one_file_under_several_names(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    (tmp_path / "link").symlink_to("a")
    os.link(tmp_path / "a", tmp_path / "hard")
    for other in ("a", "link", "hard", "../" + tmp_path.name + "/a"):
        assert same_place(tmp_path / "a", tmp_path / other)
    assert same_place(tmp_path / "new", f"{tmp_path}/./new")
    assert not same_place(tmp_path / "a", tmp_path / "new")
    assert not same_place("/dev/null", "/dev/null")  # which loses nothing
    assert not same_place("x\0", "x\0")
