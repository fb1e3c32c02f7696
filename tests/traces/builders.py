"""Trace files for tests, and what was read of them."""

from __future__ import annotations

from pathlib import Path

from melange.traces import Trace

CSV = "input_tokens,output_tokens\n13,263\n52,434\n0,7\n"

JSONL = """{"timestamp": 0, "input_length": 13, "output_length": 263}
{"timestamp": 1500, "input_length": 52, "output_length": 434}
"""


def write(folder: Path, content: str | bytes, name: str = "trace") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def rows_of(trace: Trace) -> list[tuple[int, int]]:
    return list(zip(trace.input_tokens.tolist(), trace.output_tokens.tolist(), strict=True))
