"""Benchmarks are run by hand; what they import must still be there."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

NAMES = sorted(path.stem for path in (Path(__file__).parent / "benchmarks").glob("bench_*.py"))


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_can_be_started(name):
    pytest.importorskip("aiohttp")
    assert importlib.import_module(name).__doc__
