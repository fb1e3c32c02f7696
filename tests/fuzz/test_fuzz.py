"""The short part of the fuzzing, and tests of the harness itself: what it must catch, it catches."""

from __future__ import annotations

import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
from fuzz import harness
from fuzz.__main__ import failures, replay
from fuzz.harness import try_command
from fuzz.readers import ELSEWHERE, QUICK, Target, commands, readers, targets

SHORT = 100


@pytest.mark.parametrize("target", targets(), ids=lambda target: target.name)
def test_no_mutation_is_more_than_one_line_of_error(target: Target) -> None:
    failed = failures(target.complaint, range(SHORT))
    assert not failed, "\n".join(f"{wrong}\n{replay(target.name, seed)}" for seed, wrong in failed.items())


@pytest.mark.parametrize("reader", readers(), ids=lambda reader: reader.name)
def test_the_samples_are_good(reader: Any, tmp_path: Path) -> None:
    for name, content in reader.files(None).items():
        (tmp_path / name).write_bytes(content)
    outcome = harness.run_main(reader.arguments, tmp_path)
    assert outcome.code == 0 or "no such model folder" in outcome.err, outcome


def test_every_command_is_fuzzed_or_named_as_run_elsewhere() -> None:
    assert set(commands()) == {*QUICK, *ELSEWHERE}


def test_a_seed_is_the_same_mutation_in_every_process() -> None:
    once = [reader.files(7) for reader in readers()]
    assert once == [reader.files(7) for reader in readers()]
    assert sum(reader.files(7) != reader.files(8) for reader in readers()) > len(readers()) / 2


def crash(arguments: Any) -> None:
    raise RecursionError("too deep")


def speak(arguments: Any) -> None:
    os.write(2, b"libfoo: ERROR: no\n")
    sys.exit(0)


def warn(arguments: Any) -> None:
    warnings.warn("divide by zero", RuntimeWarning, stacklevel=1)
    sys.exit(0)


def say_twice(arguments: Any) -> None:
    sys.stderr.write("melange: one\nmelange: two\n")
    sys.exit(2)


def say_nothing(arguments: Any) -> None:
    sys.exit(2)


def end_oddly(arguments: Any) -> None:
    sys.exit(7)


def leave_half(arguments: Any) -> None:
    Path("out.json.tmp").write_text("{")
    sys.stderr.write("melange: no\n")
    sys.exit(2)


def write_on_input(arguments: Any) -> None:
    Path("in.json").write_text("{")
    sys.exit(0)


def hang(arguments: Any) -> None:
    while True:
        time.sleep(0.01)


def eat(arguments: Any) -> None:
    bytearray(harness.MOST_MEMORY_BYTES * 2)
    sys.exit(0)


@pytest.mark.parametrize(
    ("reader", "complaint"),
    [
        (crash, "RecursionError"),
        (speak, "a library speaks: libfoo"),
        (warn, "RuntimeWarning"),
        (say_twice, "2 lines of error"),
        (say_nothing, "without a word"),
        (end_oddly, "exit code 7"),
        (leave_half, "left out.json.tmp"),
        (write_on_input, "changed its input in.json"),
        (hang, "not done after"),
        (eat, "MemoryError"),
    ],
)
def test_an_ill_reader_is_caught(reader: Any, complaint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if reader is hang:
        monkeypatch.setattr(harness, "MOST_SECONDS", 0.2)
    wrong = try_command(["x"], {"in.json": b"{}"}, run=reader)
    assert wrong is not None
    assert complaint in wrong


def test_a_good_reader_is_not_caught() -> None:
    def read(arguments: Any) -> None:
        sys.stderr.write("melange: in.json:1: not JSON\n")
        sys.exit(2)

    assert try_command(["x"], {"in.json": b"{"}, run=read) is None
