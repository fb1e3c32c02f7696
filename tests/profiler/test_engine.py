"""What a running engine tells about itself."""

from __future__ import annotations

import pytest

from melange.errors import EngineError
from melange.measurements.file import KvCache
from melange.profiler import engine

INFO = 'vllm:cache_config_info{block_size="128",cache_dtype="auto",num_gpu_blocks="2048"} 1.0'


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        (f"# TYPE vllm:cache_config_info gauge\n{INFO}\n", KvCache(tokens=262144, block_tokens=128)),
        (INFO.replace('"2048"', '"None"'), None),
        (INFO.replace('"128"', '"0"'), None),
        ("vllm:num_requests_running 3", None),
        (INFO + "\n" + INFO.replace("} 1.0", "} one"), None),
        ("", None),
    ],
)
def test_the_kv_cache_is_what_metrics_say(monkeypatch, metrics, expected):
    monkeypatch.setattr(engine, "get_text", lambda url, headers: metrics)
    assert engine.kv_cache("http://x", {}) == expected


def test_an_engine_without_metrics_says_nothing(monkeypatch):
    def refuse(url: str, headers: object) -> str:
        raise EngineError(f"{url} answers HTTP 404")

    monkeypatch.setattr(engine, "get_text", refuse)
    assert engine.kv_cache("http://x", {}) is None
