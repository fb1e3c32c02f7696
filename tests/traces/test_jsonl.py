"""JSONL: the place of every value that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from traces.builders import write

from melange.errors import InputError
from melange.traces import iter_trace, read_trace


@pytest.mark.parametrize("block_bytes", [1, 4 << 20])
@pytest.mark.parametrize(
    ("second", "problem"),
    [
        ('{"input_tokens": "7", "output_tokens": 1}', 'input_tokens is "7", not a number'),
        ('{"input_tokens": true, "output_tokens": 1}', "input_tokens is true, not a number"),
        ('{"input_tokens": null, "output_tokens": 1}', "input_tokens is null, not a number"),
        ('{"input_tokens": NaN, "output_tokens": 1}', "input_tokens is nan, not a count"),
        ('{"input_tokens": -7, "output_tokens": 1}', "input_tokens is -7, not a count"),
        ('{"input_tokens": 7.5, "output_tokens": 1}', "input_tokens is 7.5, not a count"),
        ('{"input_tokens": 1' + "0" * 400 + ', "output_tokens": 1}', "input_tokens is too large"),
        ('{"output_tokens": 1}', "input_tokens is missing"),
        ('{"input_tokens": 7, "output_tokens"', "not JSON"),
        ('{"input_tokens": 7, "output_tokens": 1} {}', "not JSON: Extra data"),
        ("[7, 1]", "a list, not an object"),
        ('{"input_tokens": 1' + "0" * 5000 + ', "output_tokens": 1}', "too many digits"),
        ('{"input_tokens": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply"),
    ],
)
def test_jsonl_value(tmp_path: Path, second: str, problem: str, block_bytes: int) -> None:
    good = '{"input_tokens": 7, "output_tokens": 1}'
    path = write(tmp_path, f"{good}\n\n{second}\n{good}\n")
    with pytest.raises(InputError, match=problem) as caught:
        list(iter_trace(path, block_bytes=block_bytes))
    assert (caught.value.file, caught.value.line) == (str(path), 3)


def test_jsonl_column_points_at_the_key(tmp_path: Path) -> None:
    path = write(tmp_path, '{"input_tokens": 7, "output_tokens": -1}\n')
    with pytest.raises(InputError) as caught:
        read_trace(path)
    assert (caught.value.line, caught.value.column) == (1, 21)


def test_a_key_that_is_there_twice_is_refused_and_one_within_another_is_not(tmp_path):
    twice = '{"input_tokens": 5, "input_tokens": 900, "output_tokens": 3, "arrival_s": 1}\n'
    good = '{"input_tokens": 5, "more": {"input_tokens": 900}, "output_tokens": 3, "arrival_s": 0}\n'
    path = tmp_path / "t.jsonl"
    path.write_text(good * 3)
    assert read_trace(path).input_tokens.tolist() == [5, 5, 5]
    path.write_text(good + twice)
    with pytest.raises(InputError, match=r"t\.jsonl:2: the key 'input_tokens' is there twice"):
        read_trace(path)
