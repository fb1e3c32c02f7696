"""A few of the kills and full disks that `make chaos` plays by the dozen, and what chaos itself must catch."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz import chaos
from fuzz.chaos import Long, long_commands, run, survives_full_disk, survives_kill
from fuzz.readers import commands

BY_NAME = {long.name: long for long in long_commands()}


@pytest.mark.e2e
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["profile run", "solve --attain", "nanoflow search"])
def test_a_killed_command_leaves_nothing_torn_and_ends_well_the_next_time(name: str, seed: int) -> None:
    assert survives_kill(BY_NAME[name], seed) is None


@pytest.mark.e2e
@pytest.mark.parametrize("name", ["workload from-trace", "nanoflow search", "calibrate"])
def test_a_full_disk_is_one_line_and_leaves_nothing(name: str) -> None:
    assert survives_full_disk(BY_NAME[name], 0) is None


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("open('n-new.json', 'w').write('{')", "left half of"),
        ("open('x.tmp', 'w').write('{')", "left ['x.tmp']"),
        ("open('w.yaml', 'w').write('{')", "changed an input"),
        ("raise RecursionError", "RecursionError"),
    ],
)
def test_an_ill_command_is_caught(text: str, complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "melange").mkdir()
    (tmp_path / "melange" / "__init__.py").write_text("")
    (tmp_path / "melange" / "__main__.py").write_text(f"{text}\n")
    monkeypatch.setattr(chaos, "ROOT", tmp_path)
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "w.yaml").write_text("good")
    long = Long(name="ill", arguments=(), outputs=("n-new.json",))
    well = chaos.Ended(code=0, err="", seconds=1.0, files={"n-new.json": b"{}" * 1000})
    before = chaos.files_of(tmp_path / "w")
    wrong = chaos._after_kill(long, run((), tmp_path / "w"), before, well, 15)
    assert wrong is not None
    assert complaint in wrong


def test_every_long_command_is_a_command() -> None:
    names = commands()
    assert all(any(" ".join(long.arguments).startswith(name) for name in names) for long in long_commands())
