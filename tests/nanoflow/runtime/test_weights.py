"""Model folders and catalog shapes: what is read, what is refused and how."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("safetensors")

import torch
from safetensors.torch import load_file, save_file

from melange.catalog.hardware import load_catalog
from melange.errors import InputError
from melange.nanoflow.pipeline import Pipeline
from melange.nanoflow.runtime import build
from melange.nanoflow.runtime.build import EngineOptions, build_engine, check_options, resolve_model
from melange.nanoflow.runtime.config import DecoderConfig
from melange.nanoflow.runtime.placement import Placement
from melange.nanoflow.runtime.weights import load_weights, random_weights

CPU = Placement(dtype=torch.float32, device=torch.device("cpu"))
TINY = DecoderConfig(name="tiny", layers=2, hidden=32, heads=4, kv_heads=2, head_size=8, intermediate=48, vocabulary=64)


@pytest.fixture
def folder(folders: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(folders["llama"], tmp_path / "model"))


def change(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text()) | values
    path.write_text(json.dumps({key: value for key, value in config.items() if value != "drop"}))


def test_both_generations_of_rope_keys_mean_the_same(folder: Path) -> None:
    new = DecoderConfig.from_folder(folder)
    rope = json.loads((folder / "config.json").read_text())["rope_parameters"]
    assert new.rope_scaling is not None
    theta = rope.pop("rope_theta")
    change(folder, rope_parameters="drop", rope_theta=theta, rope_scaling=rope)
    assert DecoderConfig.from_folder(folder) == new


def test_end_tokens_and_shape_come_from_the_folder(folder: Path) -> None:
    change(folder, eos_token_id=[2, 7])
    (folder / "generation_config.json").write_text('{"eos_token_id": [7, 9]}')
    config = DecoderConfig.from_folder(folder)
    assert config.end_tokens == {2, 7, 9}
    assert (config.layers, config.kv_heads, config.head_size, config.experts) == (3, 2, 8, 0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "architecture GPT2LMHeadModel is not supported"),
        ({"architectures": None}, "architecture None"),
        ({"architectures": {"a": 1}}, "architecture {'a': 1}"),
        ({"architectures": 5}, "architecture 5"),
        ({"rope_parameters": [1]}, r"rope parameters are \[1\]"),
        ({"rope_parameters": {"rope_theta": -1.0}}, "rope_theta is -1.0"),
        ({"rms_norm_eps": 0}, "norm_eps is 0.0"),
        ({"eos_token_id": [2, "x"]}, "eos_token_id is"),
        ({"hidden_size": "drop"}, "hidden_size is missing"),
        ({"hidden_size": "64"}, "wrong type|hidden is '64'"),
        ({"num_key_value_heads": 3}, "8 heads do not divide into 3"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}, "rope scaling 'yarn' is not supported"),
        ({"rope_parameters": {"rope_type": "llama3", "factor": 2.0}}, "low_freq_factor is missing"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"attention_bias": True}, "attention_bias is True"),
        ({"sliding_window": 4096}, "sliding_window is 4096"),
    ],
)
def test_models_it_cannot_run_are_refused_in_one_line(folder: Path, values: dict[str, Any], message: str) -> None:
    change(folder, **values)
    with pytest.raises(InputError, match=message) as caught:
        DecoderConfig.from_folder(folder)
    assert "config.json" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["{", "[]", "[" * 100_000, '{"eos_token_id": "x"}'])
def test_a_broken_generation_config_is_refused_in_one_line(folder: Path, text: str) -> None:
    (folder / "generation_config.json").write_text(text)
    with pytest.raises(InputError, match=r"generation_config\.json") as caught:
        DecoderConfig.from_folder(folder)
    assert "\n" not in str(caught.value)


def spoil_missing(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def spoil_bytes(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"not tensors at all")


def spoil_index(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text("{}")


def spoil_names(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": 5}}')


def spoil_type(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file({name: tensor.to(torch.int8) for name, tensor in tensors.items()}, folder / "model.safetensors")


def spoil_shard(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "absent.safetensors"}}')


def spoil_shape(folder: Path) -> None:
    change(folder, vocab_size=127)


def spoil_tying(folder: Path) -> None:
    change(folder, num_hidden_layers=4)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_missing, "no \\*.safetensors files"),
        (spoil_bytes, "cannot read the weights"),
        (spoil_index, "not an index"),
        (spoil_names, "not an index"),
        (spoil_type, "torch.int8 values"),
        (spoil_shard, "cannot read the weights"),
        (spoil_shape, r"embed_tokens.weight has shape \(128, 64\), config.json says \(127, 64\)"),
        (spoil_tying, "no tensor model.layers.3"),
    ],
)
def test_broken_weights_are_refused_in_one_line(folder: Path, spoil: Callable[[Path], None], message: str) -> None:
    spoil(folder)
    with pytest.raises(InputError, match=message) as caught:
        load_weights(folder, DecoderConfig.from_folder(folder), CPU)
    assert "\n" not in str(caught.value)


def test_parameters_of_catalog_shapes_agree_with_the_catalog() -> None:
    for name in ("llama-2-7b", "llama-3-8b", "llama-2-70b", "mixtral-8x7b"):
        model = load_catalog().model(name)
        assert DecoderConfig.from_catalog(model).parameters == pytest.approx(model.parameters, rel=1e-3)
    assert resolve_model("meta-llama/Meta-Llama-3-8B")[0].name == "llama-3-8b"


def test_shards_of_random_weights_are_parts_of_the_whole() -> None:
    whole = random_weights(TINY, CPU, seed=3)
    halves = [
        random_weights(TINY, Placement(dtype=torch.float32, device=CPU.device, rank=rank, tp=2), seed=3)
        for rank in (0, 1)
    ]
    layer, parts = whole.layers[1], [half.layers[1] for half in halves]
    assert torch.equal(torch.cat([part.o for part in parts], dim=1), layer.o)
    queries = torch.cat([part.kqv[: 2 * 8] for part in parts])
    assert torch.equal(queries, layer.kqv[: 4 * 8])
    gates = torch.cat([part.gate_up[:, :24] for part in parts], dim=1)
    assert torch.equal(gates, layer.gate_up[:, :48])
    assert sum(t.numel() for t in (whole.embedding, whole.norm, whole.head)) * 4 < whole.bytes == TINY.parameters * 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dtype": "fp8"}, "dtype is 'fp8'"),
        ({"device": "tpu"}, "device is 'tpu'"),
        ({"tp": 4}, "2 KV heads .* do not divide by tp 4"),
        ({"max_context_tokens": 1000}, "exceed the model's 256"),
        ({"kv_memory_gib": 1e-7}, "do not hold one page"),
        ({"kv_memory_gib": 1e6}, "weights and KV cache take"),
    ],
)
def test_options_that_cannot_work_are_refused(
    options: Callable[..., EngineOptions], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        build_engine(options("llama", **changes))


def test_a_model_beyond_the_machines_memory_is_refused_before_it_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_free_bytes", lambda device: 100 * 2.0**30)
    with pytest.raises(InputError, match=r"llama-3-70b's weights and KV cache take \d+ GiB"):
        check_options(EngineOptions(model="llama-3-70b", dtype="fp32"))


@pytest.mark.parametrize(
    ("changes", "requests"),
    [
        ({}, 256),
        ({"batch_tokens": 64}, 32),
        ({"max_requests": 7}, 7),
        ({"pipeline": (1024, 384)}, 384),
        ({"pipeline": (64, 64)}, 63),
        ({"pipeline": (64, None)}, 32),
    ],
)
def test_a_pipeline_decodes_as_many_requests_as_it_was_searched_for(changes: dict[str, Any], requests: int) -> None:
    if "pipeline" in changes:
        batch, decode = changes["pipeline"]
        plain = Pipeline.unsplit(model="tiny", gpu="L4", batch_tokens=batch)
        changes = {"pipeline": replace(plain, decode_tokens=decode)}
    assert EngineOptions(model="tiny", **changes).most_requests == requests
