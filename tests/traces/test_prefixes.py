"""Cached tokens from the blocks of prompts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from traces.builders import write

from melange.errors import InputError
from melange.traces import read_trace
from melange.traces.prefixes import PrefixCache


def test_mooncake_blocks_become_cached_tokens(tmp_path: Path) -> None:
    requests = [([0, 1], 700), ([0, 1, 2], 1300), ([0, 1], 1024), ([0, 9, 1], 1500), ([], 5)]
    lines = [
        json.dumps({"timestamp": 0, "input_length": size, "output_length": 1, "hash_ids": ids})
        for ids, size in requests
    ]
    trace = read_trace(write(tmp_path, "\n".join(lines)))
    # By hand: nothing yet; two blocks; two blocks less the token always computed; one block, then a miss; none.
    np.testing.assert_array_equal(trace.cached_tokens, [0, 1024, 1023, 512, 0])
    assert trace.cached_upper_bound


def test_blocks_of_another_size_are_noticed(tmp_path: Path) -> None:
    line = json.dumps({"timestamp": 0, "input_length": 160, "output_length": 1, "hash_ids": list(range(10))})
    path = write(tmp_path, f"{line}\n{line}\n")
    with pytest.raises(InputError, match="--block-tokens"):
        read_trace(path)
    np.testing.assert_array_equal(read_trace(path, block_tokens=16).cached_tokens, [0, 159])


BLOCKS = st.lists(st.lists(st.one_of(st.integers(0, 6), st.sampled_from(["a", "b", 1 << 40])), max_size=5), max_size=20)


@given(requests=BLOCKS, cut=st.integers(0, 20))
@settings(max_examples=100, deadline=None)
def test_prefix_hits_equal_a_plain_loop(requests: list[list[int | str]], cut: int) -> None:
    cache = PrefixCache(block_tokens=10)
    inputs = np.array([10 * len(blocks) for blocks in requests], dtype=np.int64)
    parts = [cache.hit_tokens(requests[part], inputs[part]) for part in (slice(0, cut), slice(cut, None))]
    seen: set[int | str] = set()
    expected = []
    for blocks in requests:
        hits = 0
        while hits < len(blocks) and blocks[hits] in seen:
            hits += 1
        expected.append(max(0, min(10 * hits, 10 * len(blocks) - 1)))
        seen.update(blocks)
    assert np.concatenate(parts).tolist() == expected


def test_mooncake_hits_equal_a_plain_loop(shared: Path) -> None:
    path = shared / "traces" / "mooncake_conversation.jsonl"
    seen: set[int] = set()
    expected = []
    for line in path.read_text(encoding="utf-8").splitlines():
        request = json.loads(line)
        hits = 0
        for block in request["hash_ids"]:
            if block not in seen:
                break
            hits += 1
        expected.append(min(512 * hits, request["input_length"] - 1))
        seen.update(request["hash_ids"])
    np.testing.assert_array_equal(read_trace(path).cached_tokens, expected)
