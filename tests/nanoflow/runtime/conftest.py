"""Tiny Llama and Mixtral folders, written by transformers, and engines that run them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "vocab_size": 128,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
    "eos_token_id": 2,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Tiny matrices only lose by several threads, on a shared machine by a factor of ten."""
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)


def _save(kind: str, folder: Path, **changes: Any) -> Path:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    torch.manual_seed(11)
    config = getattr(transformers, f"{kind}Config")(**(SHAPE | changes))
    model = getattr(transformers, f"{kind}ForCausalLM")(config).to(torch.float32)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name:
                weight.add_(0.1 * torch.randn_like(weight))
    model.save_pretrained(folder, max_shard_size="80KB" if kind == "Mixtral" else "5GB")
    return folder


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """``llama`` (llama3 rope scaling, one file) and ``mixtral`` (many shards), random weights in fp32."""
    root = tmp_path_factory.mktemp("models")
    return {
        "llama": _save("Llama", root / "llama", rope_parameters=LLAMA3_ROPE),
        "mixtral": _save("Mixtral", root / "mixtral", num_local_experts=4, num_experts_per_tok=2),
    }


@pytest.fixture(scope="session")
def oracles(folders: dict[str, Path]) -> dict[str, Any]:
    """transformers' own models of the same folders."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    return {
        name: transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        for name, folder in folders.items()
    }


@pytest.fixture
def options(folders: dict[str, Path]) -> Callable[..., Any]:
    """Options of a small engine on a tiny folder; keyword arguments change them."""
    from melange.nanoflow.runtime.build import EngineOptions

    def make(name: str, **changes: Any) -> Any:
        small = {"dtype": "fp32", "batch_tokens": 32, "max_requests": 8, "page_tokens": 4, "kv_memory_gib": 0.01}
        return EngineOptions(**({"model": str(folders[name])} | small | changes))

    return make


@pytest.fixture
def make_engine(options: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """Builds engines of such options in this process, closed at the test's end."""
    from melange.nanoflow.runtime.build import build_engine

    made: list[Any] = []

    def make(name: str, **changes: Any) -> Any:
        made.append(build_engine(options(name, **changes)))
        return made[-1]

    yield make
    for engine in made:
        engine.close()
