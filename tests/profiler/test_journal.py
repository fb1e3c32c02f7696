"""The journal: one writer, whole lines, and what a kill or a full disk leaves."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from melange.errors import InputError
from melange.measurements.file import Header, read_measurements, record_line
from melange.measurements.measurement import Measurement
from melange.profiler.journal import Journal
from melange.profiler.load import Size
from melange.serving.config import ConfigKey

KEY = ConfigKey("m", "g", 1, "bf16", "vllm")


def point(**changes: object) -> Measurement:
    values: dict[str, object] = {**KEY._asdict(), "input_tokens": 1, "output_tokens": 1, "achieved_rps": 1.0}
    return Measurement(**{**values, **changes})  # type: ignore[arg-type]


def test_points_of_its_configuration_and_size_are_found_again(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    others = [point(gpu="other"), point(input_tokens=2), point(cached_tokens=1.0)]
    with Journal(path, KEY) as journal:
        journal.append_header(Header(**KEY._asdict()))
        for record in (point(), *others, point(achieved_rps=2.0)):
            journal.append(record)
    with path.open("a") as file:
        file.write('{"record": "poi')
    with Journal(path, KEY) as journal:
        assert [p.achieved_rps for p in journal.points(Size(1, 1))] == [1.0, 2.0]
        assert journal.points(Size(2, 1)) == [others[1]]
    assert path.read_text().endswith("}\n")  # the torn line is gone from it, and not lost
    assert (tmp_path / "a.jsonl.torn-1").read_text() == '{"record": "poi'


def test_a_second_run_on_one_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with Journal(path, KEY):
        code = f"from melange.profiler.journal import Journal; Journal({str(path)!r}, None).__enter__()"
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "another profile run is writing it" in other.stderr
    with Journal(path, KEY):
        pass


def test_an_unwritable_file_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot write it"), Journal(tmp_path / "no" / "a.jsonl", KEY):
        pass
    if os.geteuid() != 0:
        (tmp_path / "a.jsonl").touch(mode=0o444)
        with pytest.raises(InputError, match="cannot write it"), Journal(tmp_path / "a.jsonl", KEY):
            pass


def test_damage_elsewhere_than_at_the_end_is_not_repaired(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("not json\n" + record_line(Header(facts={"a": 1})))
    with pytest.raises(InputError, match=r"a\.jsonl:1"), Journal(path, KEY):
        pass
    assert path.read_text().startswith("not json\n")


def test_a_full_disk_keeps_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with Journal(path, KEY) as journal:
        journal.append(point())
        size = path.stat().st_size
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, limits[1]))
        try:
            with pytest.raises(InputError, match="what it held before is kept"):
                journal.append(point())
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, handler)
        assert path.stat().st_size == size
        journal.append(point())
    assert len(read_measurements(path).points) == 2
