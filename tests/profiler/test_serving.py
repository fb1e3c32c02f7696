"""What a server is asked before anything is measured, and what its measurements are filed under."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("aiohttp")

from melange.errors import EngineError, InputError
from melange.profiler.client import Endpoint
from melange.profiler.serving import catalog_name, found_precision, probe, server_key, today
from melange.serving.config import ConfigKey
from melange.testing.fault_server import FaultServer


def endpoint(server: FaultServer) -> Endpoint:
    return Endpoint(url=server.url, model="fault", headers={})


def test_probe_falls_back_to_text_and_learns_its_length() -> None:
    with FaultServer(fault="refuses token ids") as server:
        serving = probe(endpoint(server))
    assert not serving.dialect.token_ids
    assert serving.dialect.words_per_token == pytest.approx(1.0)
    assert serving.version == "fault-1"
    assert serving.max_model_len == 4096


def test_probe_gives_the_servers_last_word() -> None:
    with FaultServer(fault="500") as server, pytest.raises(EngineError, match="HTTP 500"):
        probe(endpoint(server))


def test_precision_is_found_where_something_tells_it(tmp_path: Path) -> None:
    assert found_precision("m", ["--quantization", "awq_marlin"]) == ("int4", "engine arguments")
    assert found_precision("m", ["--dtype=half"]) == ("fp16", "engine arguments")
    (tmp_path / "config.json").write_text('{"torch_dtype": "float32"}')
    assert found_precision("m", ["--dtype", "auto"], tmp_path) == ("fp32", "model folder")
    assert found_precision("Llama-3.1-8B-Instruct-FP8") == ("fp8", "model name")
    assert found_precision("m", ["--dtype", "half"], tmp_path, "int8") == ("int8", "given")
    assert found_precision("m") == ("bf16", "assumed")


def test_the_key_follows_arguments_and_the_catalogs_names() -> None:
    key = server_key("m", gpu="NVIDIA L4", engine="vllm", args=["-tp", "2", "--dtype", "half"])
    assert key == ConfigKey("m", "L4", 2, "fp16", "vllm")
    assert server_key("m", gpu="L4", engine="vllm", args=["-tp", "2"], tp=4, precision="fp8").tp == 4
    budgeted = server_key(
        "m", gpu="L4", engine="vllm", args=["--kv-cache-dtype=fp8_e4m3", "--max-num-batched-tokens", "2k"]
    )
    assert (budgeted.kv_dtype, budgeted.max_batched_tokens) == ("fp8", 2000)
    few = server_key("m", gpu="L4", engine="vllm", args=["--max-num-seqs", "64"])
    assert (few.max_num_seqs, few.max_batched_tokens) == (64, None)
    assert catalog_name("Some GPU") == "Some GPU"
    with pytest.raises(InputError, match="--tensor-parallel-size is 'two'"):
        server_key("m", gpu="L4", engine="vllm", args=["--tensor-parallel-size=two"])


def test_dates_are_days_of_utc() -> None:
    assert today(86_400.0) == "1970-01-02"
